# `make` alone lists the targets.
DENY   := 0.20.2
ROUNDS ?= 10000
SEEDS  ?= 300
START  ?= 0
TARGET ?= message

.DEFAULT_GOAL := help
.PHONY: help run test check soak bench compare compare-sync compare-blobs fuzz sim plants fmt doc tidy lint no-std deny slow deps

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: ## Build and run the demo: one server, three devices, no set-up
	cargo run --release -- demo

test: deps ## Run every test (at most 5 minutes after the build)
	cargo test --workspace

check: deps lint no-std deny slow ## Everything that must pass before a change lands, beyond `make test`

soak: ## Kill the store in the middle of writes, ROUNDS times, flip every bit of a redb file, explore a million schedules of GC, fill a disk (hours)
	LASTWORD_KILL_ROUNDS=$(ROUNDS) cargo test --release -p lastword-store --test store -- kills --nocapture
	LASTWORD_FLIP_STRIDE=1 cargo test --release -p lastword-store --test flips -- --nocapture --test-threads 1
	LASTWORD_KILL_ROUNDS=20 cargo test --release --workspace -- kills
	LASTWORD_GC_SCHEDULES=1000000 cargo test --release -p lastword-store --test store -- explored_schedules --nocapture
	LASTWORD_DISK_RECORDS=500000 cargo test --release -p lastword-store --test store -- endless_updates

bench: ## Measure speed (about 2 minutes after the build)
	cargo bench -p lastword-benches

compare: ## Measure log and state beside fjall, SQLite, redb and LMDB (10 minutes; PARTS=a,b for some of it)
	cargo run --release -p lastword-benches --features peers --bin compare -- store $(if $(PARTS),--only $(PARTS))

compare-sync: ## Measure replication beside RxDB, PouchDB, TinyBase, Yjs and automerge-repo (needs npm; 15 minutes)
	cargo run --release -p lastword-benches --features peers --bin compare -- sync

compare-blobs: ## Measure files beside restic, borg and casync, which apt-get installs (20 minutes; MIB=300 for less)
	cargo run --release -p lastword-benches --features peers --bin compare -- blobs $(if $(MIB),--mib $(MIB))

fuzz: ## Fuzz one TARGET until it fails (needs nightly Rust and cargo-fuzz; targets: ls fuzz/corpus)
	@mkdir -p fuzz/targets/corpus/$(TARGET)
	cargo +nightly fuzz run --fuzz-dir fuzz/targets $(TARGET) fuzz/targets/corpus/$(TARGET) fuzz/corpus/$(TARGET)

sim: ## Play SEEDS seeds of the simulator, from START on, and say which promises they broke
	cargo run --profile sim -p lastword-sim -- --seeds $(SEEDS) --start $(START)

plants: ## Put each planted bug in, and let the simulator or its test find it
	cargo test -p lastword-core -p lastword-store -p lastword --features lastword/plant --lib --test core --test store --test engine --test semantics -- plants::
	cargo run --release -p lastword-sim --features plant -- --plant all

fmt: ## Format the code
	cargo fmt --all

doc: ## Build the API documentation and open it
	cargo doc --workspace --no-deps --open

tidy: ## Check sizes, layers, manifests and names (part of `make test`)
	cargo test -p lastword --test tidy

lint: ## Formatting, clippy and rustdoc, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p lastword --no-default-features -- -D warnings
	cargo clippy -p lastword-core -p lastword-store -p lastword -p lastword-sim --all-targets --features lastword-sim/plant -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

no-std: tidy ## Build core without std; tidy keeps std from coming in by hand
	cargo build -p lastword-core --no-default-features

deny: ## Licences, banned crates, sources, and advisories if their database can be fetched
	@cargo deny --version 2>/dev/null | grep -qF "$(DENY)" || { echo "Installing cargo-deny $(DENY)."; cargo install cargo-deny --version $(DENY) --locked; }
	cargo deny check --hide-inclusion-graph licenses bans sources
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; else echo "Advisories were skipped: their database cannot be fetched from here."; fi

slow: ## What `make test` does in part, in full: kills, crash points, flipped bits, models, planted bugs, 50 devices
	LASTWORD_KILL_ROUNDS=200 cargo test -p lastword-store --test store -- kills
	LASTWORD_KILL_ROUNDS=20 cargo test -p lastword-server -- kills
	LASTWORD_STORM_SECONDS=180 cargo test -p lastword-server --test server -- fleet
	LASTWORD_CRASH_STRIDE=1 cargo test -p lastword-store --test store -- crash
	LASTWORD_FLIP_STRIDE=1 cargo test -p lastword-store --test flips log
	LASTWORD_FLIP_STRIDE=16 cargo test -p lastword-store --test flips redb
	PROPTEST_CASES=2000 cargo test -p lastword-core -- model
	LASTWORD_GC_SCHEDULES=20000 cargo test -p lastword-store --test store -- explored_schedules
	cargo run --release -p lastword-sim -- --seeds 2000
	$(MAKE) plants

deps: ## Install what the tests need beyond Rust (today: Node)
	@command -v node >/dev/null && exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "The tests need Node 18 or later: please install it."; exit 1; }; \
	echo "Installing nodejs: some tests compare results with a Node script."; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends nodejs
