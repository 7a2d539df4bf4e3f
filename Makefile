# make demo           the main job on a real OSTree Debian, booted in namespaces (KEEP=1 leaves it running)
# make test           all tests, those on booted hosts included, after make lint
# make torture        hundreds of power cuts (POWER_CUT=WRITES:SEED for one of them), hundreds of updates in a row,
#                     fuzzers for every parser; the counts go to target/torture.json
# make bench          ours against the peers, in one run (ONLY=id for one row)
# make lint           formatting, clippy and the dependencies' licences and sources
# make deb            the Debian package, in target/deb/; SUITE=trixie builds it for that suite, in target/trixie/deb/
# make demo-clean     removes what a demo or a killed test left
# make clean          removes everything that was built
# Root and a Debian machine are needed: each target installs what it lacks. SUITE=trixie before deb, demo and test means
# that suite of Debian, whatever the machine's is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help prerequisites build deb image demo demo-clean test torture bench lint clean

help:
	@sed -n 's/^# //p' Makefile

prerequisites:
	@tests/host/prerequisites.sh

build: prerequisites
	cargo build --release --locked

deb: prerequisites
	debian/build.sh

# The host's image holds the package; its mirror's server is an example of this crate.
build_image = cargo build --locked --quiet --example mirror --example host-contract \
	&& tests/host/image.sh > /dev/null && tests/host/upgrades.sh > /dev/null

image: deb
	$(build_image)

demo: image
	KEEP=$(KEEP) tests/host/demo.sh

demo-clean:
	tests/host/clean

# The package under test is built without optimization: what takes long is the hosts.
test: prerequisites lint
	debian/build.sh dev
	$(build_image)
	if cargo nextest --version > /dev/null 2>&1; then cargo nextest run --workspace --locked --no-fail-fast && cargo test --workspace --locked --doc --quiet; \
	else cargo test --workspace --locked; fi

# How many cuts: one in every flush of the disk, and some between. How many updates and rollbacks in a row.
torture: export POWER_CUTS = 320
torture: export SOAK = 300
# The faults of the simulated host: each pair of them, and so many sequences by chance.
torture: export EVERY = 1
torture: export SEEDS = 5000
# The steps in which a machine with Debian's own kernel is killed.
torture: export EMULATED_CUTS = install switch start-units check-health deploy finalize
torture: export TORTURE = $(CURDIR)/target/torture.json
torture: prerequisites
	debian/build.sh dev
	$(build_image)
	cargo test --locked --package apt-ostree-actors --test transactions faults:: -- --nocapture
	cargo test --locked --test host faults:: -- --nocapture
	cargo test --locked --test host nothing_piles_up -- --nocapture
	cargo test --locked --test host kernel::a_machine_that_is_killed -- --nocapture
	tests/fuzz/run 60
	cargo test --locked --test host a_power_cut_at_any_write -- --nocapture

lint: prerequisites
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	.ci/cargo-deny --locked check licenses bans sources

bench: image
	ONLY=$(ONLY) cargo bench --locked --bench main

clean: demo-clean
	cargo clean
