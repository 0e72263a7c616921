# What a user and CI call. One profile (release) and one target folder, so that dependencies are built once.
SHELL := /bin/bash
CARGO ?= cargo
export ORT_DYLIB_PATH ?= $(wildcard $(CURDIR)/.cache/onnxruntime/libonnxruntime.so)

.PHONY: deps build demo test lint bench check-features

# Installs the Debian packages that are missing, and ONNX Runtime's library for tests.
deps:
	@bash .ci/deps.sh

build: deps
	$(CARGO) build --release --locked

# The whole main job on whatever pack and clip is here.
demo: build
	@if [ -d ../shared/models ]; then FACEID_MODELS_DIR=$(CURDIR)/.cache/models ./target/release/faceid models fetch standard --from ../shared/models; fi
	@if [ -d .cache/models ]; then export FACEID_MODELS_DIR=$(CURDIR)/.cache/models; fi; ./target/release/faceid demo

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

test: deps
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	ORT_DYLIB_PATH=$$(ls $(CURDIR)/.cache/onnxruntime/libonnxruntime.so 2>/dev/null) $(CARGO) test --release --locked

bench: build
	./target/release/faceid bench search

# Each backend alone, and no GStreamer.
check-features:
	$(CARGO) clippy --release --locked --lib --bins --no-default-features --features ort -- -D warnings
	$(CARGO) clippy --release --locked --lib --bins --no-default-features --features tract -- -D warnings
