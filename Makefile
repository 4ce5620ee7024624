# Everything a person or the gate runs. Each target installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export WEFT_CACHE ?= $(HOME)/.cache/weft
export PATH := $(WEFT_CACHE)/tools/bin:$(PATH):/usr/sbin:/sbin
INSTALL := tests/tools/install.sh
PROFILE ?= release
OUT ?= dist/images
TAG ?= dev

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

build: ## the binaries, optimised
	@$(INSTALL) build
	cargo build --release --bins

test: lint unit ## what the gate runs: lint, unit, world and network namespace tests

lint: ## formatting, clippy, shell scripts, licences and dependency rules
	@$(INSTALL) build lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo deny --log-level error check bans licenses sources
	shellcheck tests/tools/*.sh .ci/run

unit: ## all tests of the workspace, those in network namespaces included
	@$(INSTALL) build test
	cargo test --workspace --quiet

test-full: test ## and what takes longer: a GiB each way, the demo, the benchmark
	WEFT_FULL=1 cargo test --workspace --quiet --test netns_traffic --test command
	$(MAKE) demo
	$(MAKE) bench

demo: ## two nodes without Kubernetes, a shop, traffic, changes under load; KEEP=1 leaves it up with a shell
	@$(INSTALL) build demo
	cargo build --bins
	@$${CARGO_TARGET_DIR:-target}/debug/weft-demo

bench: ## Weft beside Envoy, nginx and HAProxy on one core; PROFILE=release as shipped, ARGS="--only plain --rounds 5 --out bench.json"
	@$(INSTALL) build bench
	cargo bench -p weft-bench --profile $(PROFILE) --bench peers -- $(ARGS)

images: ## one docker-archive per component for `ctr images import` and `docker load`: OUT=dir TAG=name PROFILE=release
	@$(INSTALL) build images
	cargo build --profile $(PROFILE) --bins
	python3 images/build.py $(OUT) $${CARGO_TARGET_DIR:-target}/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE)) $(TAG)

clean: ## remove what was built here; the cache stays
	cargo clean

.PHONY: help build test test-full lint unit demo bench images clean
