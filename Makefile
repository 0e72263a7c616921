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
	./target/release/faceid demo

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
	$(CARGO) check --release --locked --no-default-features --features ort
	$(CARGO) check --release --locked --no-default-features --features tract
