//! The D-Bus contract.
