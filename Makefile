# The same words at home and in CI.

.PHONY: run test lint

# Builds and starts the server: SQLite in ./data, loopback, open mode.
run:
	cargo run --release --locked

# Installs what is missing, starts MySQL, runs everything on both databases, stops what it started.
test:
	tests/services/install
	tests/services/run cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
