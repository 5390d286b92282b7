# Daily commands. Everything here is plain cargo: `just` only saves typing.

# List the commands.
default:
    @just --list

# Compile everything, tests included.
check:
    cargo check --workspace --all-targets --locked

# Run the tests.
test *ARGS:
    cargo test --workspace --locked {{ARGS}}

# Format.
fmt:
    cargo fmt --all

# Lints; warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Benchmarks.
bench *ARGS:
    cargo bench --workspace --locked {{ARGS}}

# Run one fuzz target for a while: `just fuzz wire 60`.
fuzz TARGET SECONDS="60":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# Simulated clusters: `just sim run --seed 7`, `just sim check --seeds 20`.
sim *ARGS:
    cargo run --profile sim-dev --locked --package shoal-sim --bin sim -- {{ARGS}}

# Licences, advisories, bans.
deny:
    cargo deny check

# A cluster on this machine, and its end.
up *ARGS:
    cargo build --release --locked
    ./target/release/shoal up {{ARGS}}
down *ARGS:
    ./target/release/shoal down {{ARGS}}

# What must be green before a change goes in. It never edits.
ci: lint check test
