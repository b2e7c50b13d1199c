.PHONY: build test chaos test-deploy check deps bench bench-all clean

build: ## the program, optimised: target/release/aiops
	cargo build --release --locked

test: deps ## everything that can fail, against real servers; skips nothing
	cargo test --locked --all-targets
	cargo test --locked --doc
	@if [ -e tests/readme.sh ]; then tests/readme.sh; fi

KILLS ?= 200
chaos: deps ## kill -9 at KILLS points (200) of a storm of 2,000 alerts, on SQLite and on three replicas; KILLS_SEED says which
	KILLS=$(KILLS) cargo test --locked --test it -- kills::kills_in_a_storm --nocapture --test-threads 1

test-deploy: ## image, compose file and systemd unit, really run in containers; needs root
	tests/deps.sh containers
	tests/compose.sh
	tests/systemd.sh

check: ## form: rustfmt, clippy, documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

deps: ## the servers that the tests talk to
	tests/deps.sh

bench: ## the inner loops, each by itself
	cargo bench --locked

bench-all: build ## everything that docs/performance.md states; some 40 minutes on a quiet machine
	tests/bench.sh target/release/aiops

clean:
	cargo clean
