# The same words at home and in CI.

.PHONY: run release test soak fuzz lint bench

# Builds what is quickly built and starts it: SQLite in ./data, loopback, open mode.
run:
	cargo run --profile quick --locked

# Builds what is shipped: target/release/georoom.
release:
	cargo build --release --locked

# Installs what is missing, starts MySQL, runs everything on both databases, stops what it started.
test:
	tests/services/install
	tests/services/run cargo test --workspace --locked

# The tests of crashes, restarts and stampedes (tests/api/crash.rs) with 20 kills a database instead of 5, and
# those of outages (tests/api/outages.rs) ten times as often, with 10,000 slow connections; those of readers
# that stall (tests/api/stalls.rs) with 1,000 in a crowd instead of 200; crowds that come and go (tests/api/crowd.rs) are
# ten times as large. Before them ten minutes of hostile strangers of every kind beside an honest fleet, on a release
# build (tests/api/hostile.rs).
soak:
	tests/services/install
	$(MAKE) release
	GEOROOM_BINARY=$(CURDIR)/target/release/georoom GEOROOM_HOSTILE_SECONDS=600 \
		tests/services/run cargo test --locked --test api -- hostile:: --show-output
	GEOROOM_KILLS=20 GEOROOM_OUTAGES=10 GEOROOM_SLOW=10000 GEOROOM_STALLED=1000 GEOROOM_STALL_SECONDS=60 \
		GEOROOM_CROWD=1000 tests/services/run cargo test --locked --test api -- crash:: outages:: stalls:: crowd:: --show-output

# Throws bytes at what reads bodies, events and tokens (tests/fuzz): FUZZ_SECONDS each.
fuzz:
	tests/fuzz/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
	tests/dependencies

# Measures georoom against peers in turns and prints one table (bench/README.md): about 20 minutes on two cores.
# One row or a few: make bench ROWS="fanout1 put256". Quick and rough: BENCH_ROUNDS=1 BENCH_SECONDS=2 make bench
bench:
	bench/run $(ROWS)
