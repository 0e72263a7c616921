# What a user and CI call. One profile (release) and one target folder, so that dependencies are built once.
SHELL := /bin/bash
CARGO ?= cargo
export ORT_DYLIB_PATH ?= $(wildcard $(CURDIR)/.cache/onnxruntime/libonnxruntime.so)

.PHONY: deps test-deps build demo test floods lint deny skipped bench check-features package test-package \
	build-arm64 test-arm64 package-arm64 test-package-arm64

# Installs the Debian packages that are missing, and ONNX Runtime's library for tests.
deps:
	@bash .ci/deps.sh

test-deps:
	@bash .ci/deps.sh test

build: deps
	$(CARGO) build --release --locked

# The whole main job on the built-in pack and the bundled clip. ONNX Runtime's library may have come with this very call.
demo: build
	@ORT_DYLIB_PATH="$${ORT_DYLIB_PATH:-$$(ls $(CURDIR)/.cache/onnxruntime/libonnxruntime.so 2>/dev/null)}" ./target/release/faceid demo

lint: deny
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

# Licences, duplicates, bans and sources; advisories where their database has been fetched (`cargo deny fetch`), because it comes from
# the network. The tool itself is no part of the build: `cargo install --locked cargo-deny`.
deny:
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "SKIPPED: cargo-deny is not installed; licences, duplicates and advisories were not checked"; \
	else \
		$(CARGO) deny --locked check bans licenses sources || exit 1; \
		if ls $${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs/*/crates >/dev/null 2>&1; then \
			$(CARGO) deny --locked check --disable-fetch advisories; \
		else \
			echo "SKIPPED: there is no advisory database; fetch it with \`cargo deny fetch\`"; \
		fi; \
	fi

# Says loudly what the tests on this machine cannot show.
skipped:
	@[ -d "$${FACEID_SHARED:-../shared}" ] || echo "SKIPPED: no pictures and networks beside the project: tests on real data do not run"
	@[ -e "$(ORT_DYLIB_PATH)" ] || ls .cache/onnxruntime/libonnxruntime.so >/dev/null 2>&1 || echo "SKIPPED: no ONNX Runtime library: only tract is tested"
	@command -v systemd-analyze >/dev/null || echo "SKIPPED: no systemd-analyze: the units' exposure is not measured"
	@{ [ "$$(id -u)" = 0 ] && [ -x /lib/systemd/systemd-journald ]; } || echo "SKIPPED: no root or no systemd-journald: the journal's fields are not tested"
	@command -v mosquitto >/dev/null || echo "SKIPPED: no mosquitto: the broker tests cannot run"

test: test-deps skipped
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	ORT_DYLIB_PATH=$$(ls $(CURDIR)/.cache/onnxruntime/libonnxruntime.so 2>/dev/null) $(CARGO) test --release --locked

# What `make test` does for seconds, for ten minutes: a hostile broker, and what it costs daemon and door.
floods:
	FACEID_FLOOD_SECONDS=600 $(CARGO) test --release --locked --test mqtt --test door floods -- --nocapture --test-threads=1

# Search over synthetic templates, and the demo's clips through the pipeline. Beside the Python stack: models/bench-peer.toml and
# PROJECT_REPORT.md.
bench: build
	./.ci/bench-index.sh 1000,10000,100000
	./target/release/faceid bench store --sizes 10000,100000
	@for clip in door idle; do ./target/release/faceid bench pipeline data/demo/$$clip.mp4 || exit 1; done

# Each backend alone, and no GStreamer.
check-features:
	$(CARGO) clippy --release --locked --lib --bins --no-default-features --features ort -- -D warnings
	$(CARGO) clippy --release --locked --lib --bins --no-default-features --features tract -- -D warnings

# The .deb, in target/debian. The tool is no part of the build: `cargo install --locked cargo-deb`.
package: build
	$(CARGO) deb --no-build --strip

# The package on a clean Debian root, and lintian's word. No part of `make test`: it needs root, a Debian mirror and minutes.
test-package: package
	@deb=$$(ls -t target/debian/faceid_*_$$(dpkg --print-architecture).deb | head -1); \
	if command -v lintian >/dev/null; then lintian --fail-on error,warning --profile debian "$$deb"; else echo "SKIPPED: no lintian"; fi; \
	if [ "$$(id -u)" = 0 ] && command -v debootstrap >/dev/null; then tests/package/run.sh "$$deb"; \
	else echo "SKIPPED: no root or no debootstrap: the package was not installed anywhere"; fi

# For 64-bit Arm, from here and shown under emulation: cross/build.sh says what it needs. Minutes to an hour each; no part of `make test`.
build-arm64:
	cross/build.sh build

test-arm64:
	cross/build.sh test
	cross/build.sh demo

package-arm64:
	cross/build.sh package

test-package-arm64: package-arm64
	cross/build.sh test-package
