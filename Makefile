# The same commands at home and in CI.

.PHONY: run release test soak fuzz lint bench

# Builds without optimisation, which is quick, and starts the server: SQLite in ./data, loopback, open mode.
run:
	cargo run --profile quick --locked

# Builds what is shipped: target/release/georoom.
release:
	cargo build --release --locked

# Installs what is missing, starts MySQL, runs all tests, on both databases where storage matters, and stops what it
# started.
test:
	tests/services/install
	tests/services/run cargo test --workspace --locked

# Breaks the server more often than `make test` does, for half an hour on two cores, and runs on MySQL also the tests
# that say nothing about storage:
# - strangers of every hostile kind beside an honest fleet, for ten minutes on a release build (tests/api/hostile.rs);
# - crashes, restarts and stampedes with 20 kills for each database instead of 5 (tests/api/crash.rs);
# - outages ten times as often, with 10,000 slow connections (tests/api/outages/);
# - stalled readers, 1,000 in a crowd instead of 200 (tests/api/stalls/);
# - crowds that come and go, ten times as large (tests/api/crowd.rs).
soak:
	tests/services/install
	$(MAKE) release
	GEOROOM_BINARY=$(CURDIR)/target/release/georoom GEOROOM_HOSTILE_SECONDS=600 \
		tests/services/run cargo test --locked --test api -- hostile:: --show-output
	GEOROOM_KILLS=20 GEOROOM_OUTAGES=10 GEOROOM_SLOW=10000 GEOROOM_STALLED=1000 GEOROOM_STALL_SECONDS=60 \
		GEOROOM_CROWD=1000 tests/services/run cargo test --locked --test api -- crash:: outages:: stalls:: crowd:: --show-output
	tests/services/run cargo test --locked --test api -- --ignored ::mysql

# Sends random bytes to the parsers of bodies, events and tokens (tests/fuzz), FUZZ_SECONDS to each.
fuzz:
	tests/fuzz/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
	tests/dependencies

# Measures georoom against peers in turns and prints one table (bench/README.md), for about 20 minutes on two cores.
# A row or a few: make bench ROWS="fanout1 put256". Quick and rough: BENCH_ROUNDS=1 BENCH_SECONDS=2 make bench
bench:
	bench/run $(ROWS)
