//! Tests on a real OSTree Debian that boots with systemd in namespaces. They need root on a Linux
//! machine and Debian's archive; `make test` installs the rest. Every test boots a host of its own.

mod at_boot;
mod bad_input;
mod boot;
mod bus;
mod confirm;
mod database;
mod faults;
mod health;
mod journals;
mod kernel;
mod named_points;
mod older_entry;
mod own_update;
mod plan;
mod points;
mod port_contract;
mod power_cut;
mod readers;
mod rollback;
mod services;
mod soak;
mod strategies;
mod support;
mod target;
mod unclean_boot;
mod units;
mod update;
mod validation;
