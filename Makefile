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
VERSION := $(shell sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$$/\1/p' charts/weft/Chart.yaml)
RUNS ?= 3
REPORTS ?= dist/conformance
PICTURES ?= docs/pictures
# Of each fuzz target. Not of the environment: a shell has a variable of this name, too.
SECONDS := 600
SBOM ?= dist/sbom
RELEASE ?= dist/release
# Of a soak.
HOURS ?= 1
# What this version is tried together with: the release before it, and as long as there is none, a commit with another protocol.
FROM ?= $(or $(shell git describe --tags --abbrev=0 HEAD^ 2>/dev/null),fa68dd0)
# The test cluster's name: clusters of different names stand side by side.
NAME ?= dev

# Programs are linked statically, so that an image has nothing but them, and tests run what is shipped. ARCH=arm64 makes
# images for the other architecture. A target that is named keeps the flags away from build scripts and macros.
HOST_ARCH := $(shell uname -m)
ARCH ?= $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(HOST_ARCH)))
export CARGO_BUILD_TARGET := $(patsubst amd64,x86_64,$(patsubst arm64,aarch64,$(ARCH)))-unknown-linux-gnu
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS := -C target-feature=+crt-static
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS := -C target-feature=+crt-static
ifneq ($(CARGO_BUILD_TARGET),$(HOST_ARCH)-unknown-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu := aarch64-linux-gnu-gcc
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER := x86_64-linux-gnu-gcc
export CC_x86_64_unknown_linux_gnu := x86_64-linux-gnu-gcc
endif
# What the benchmark's load makes the proxy do, counted: where this file is, release programs are made for it. What has changed since is
# compiled as without.
COUNTS := $(CURDIR)/tests/bench/weft.profdata
ifneq ($(and $(filter release,$(PROFILE)),$(wildcard $(COUNTS))),)
build bench bench-scale images: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS += -Cprofile-use=$(COUNTS) -Cllvm-args=-disable-vp -Cllvm-args=-no-pgo-warn-mismatch
endif
export CARGO_TARGET_DIR ?= target
BUILT := $(CARGO_TARGET_DIR)/$(CARGO_BUILD_TARGET)
# Where Cargo puts what it builds with a profile.
BUILD_DIR := $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

build: ## the binaries, optimised
	@$(INSTALL) build
	cargo build --release --bins

test: lint unit cluster-test ## what the gate runs: lint, unit, world and network namespace tests, and a cluster with Weft on it

lint: ## formatting, clippy, shell scripts, licences and dependency rules
	@$(INSTALL) build lint
	cargo fmt --all --check
	@# And what libFuzzer drives, without libFuzzer.
	cargo clippy --workspace --all-targets --features weft-fuzz/libfuzzer --quiet -- -D warnings
	cargo deny --log-level error check bans licenses sources
	shellcheck -x tests/tools/*.sh tests/bench/*.sh tests/cluster/*.sh tests/cluster/node/*.sh tests/scale/*.sh tests/elsewhere/*.sh tests/pictures/*.sh images/*.sh fuzz/*.sh .ci/run

# What these tests need besides is installed, so none of them is left out for want of it.
unit: export WEFT_TOOLS = 1
unit: ## all tests of the workspace, those in network namespaces included
	@$(INSTALL) build test
	@# Some tests run programs of other packages, which cargo doesn't build for them.
	cargo build --workspace --bins --quiet
	cargo test --workspace --quiet

# A healthy mesh on the cluster has to alarm nobody for half an hour, instead of a minute.
test-full: export WEFT_HEALTHY_SECONDS = 1800
# And outages, of ten minutes each, and what else takes long there.
test-full: export WEFT_ALL = 1
test-full: export WEFT_OUTAGE_SECONDS = 600
test-full: test ## and what takes longer: a GiB each way, ten minutes of each fuzz target, half an hour of a healthy mesh, outages of ten minutes, an hour of churn, all releases of the Gateway API, an older version beside this one, cert-manager and external-dns, the demo, the benchmarks
	WEFT_FULL=1 cargo test --workspace --quiet --test netns_traffic --test command
	PATH=$(WEFT_CACHE)/cluster/bin:$$PATH cargo test --workspace --quiet --test bundles -- --ignored --test-threads=1
	$(MAKE) fuzz
	$(MAKE) skew
	$(MAKE) elsewhere
	$(MAKE) pictures PICTURES=$(CARGO_TARGET_DIR)/pictures
	$(MAKE) sbom SBOM=$(CARGO_TARGET_DIR)/sbom
	$(MAKE) demo
	$(MAKE) bench
	$(MAKE) bench-scale

# What cargo-fuzz passes to the compiler, less what only a nightly one takes: no sanitizer, since unsafe code is in crates/sys alone.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks

fuzz: ## each fuzz target for a while; SECONDS=600 TARGETS="h1_framing request"; what is found stays in the build's folder
	@$(INSTALL) build fuzz
	RUSTFLAGS='$(FUZZ_FLAGS)' CARGO_PROFILE_DEV_DEBUG=0 cargo build --workspace --features weft-fuzz/link --bin weft-fuzz --target-dir $(CARGO_TARGET_DIR)/fuzz --quiet
	fuzz/run.sh $(CARGO_TARGET_DIR)/fuzz/$(CARGO_BUILD_TARGET)/debug/weft-fuzz $(CARGO_TARGET_DIR)/fuzz/found $(SECONDS) $(TARGETS)

demo: ## two nodes without Kubernetes, a shop, traffic, changes under load; KEEP=1 leaves it up with a shell, OBSERVE=1 adds a Prometheus
	@$(INSTALL) build demo $(if $(filter 1,$(OBSERVE)),test)
	cargo build --bins
	@$(BUILT)/debug/weft-demo

# The dashboard of the control plane needs a cluster: `WEFT_PICTURES=$PWD/docs/pictures make cluster-test` draws it.
pictures: ## pictures of `weft dashboard` and of Grafana's dashboards for the manual, and what a browser makes of that page; PICTURES=dir
	@$(INSTALL) build test pictures
	cargo build --workspace --bins --quiet
	mkdir -p $(PICTURES) $(CARGO_TARGET_DIR)/pages
	WEFT_PICTURES=$(abspath $(PICTURES)) cargo test --workspace --quiet --bin weft -- --ignored --test-threads=1 dashboard::tests::browser
	WEFT_PICTURES=$(abspath $(CARGO_TARGET_DIR)/pages) cargo test --workspace --quiet --test netns_pictures
	tests/pictures/photograph.sh $(CARGO_TARGET_DIR)/pages $(PICTURES)
	@# A picture in a repository is kept for ever: 256 colours will do.
	pngquant --force --skip-if-larger --strip --ext .png 256 $(PICTURES)/*.png || [ $$? = 98 ]

bench: ## Weft beside Envoy, nginx and HAProxy on one core; PROFILE=release as shipped, ARGS="--only plain --rounds 5 --out bench.json"
	@$(INSTALL) build bench
	@# Of the whole workspace, so that everything has the features, and functions the names, that they have in what is shipped.
	cargo bench --workspace --profile $(PROFILE) --bench peers -- $(ARGS)

profile: ## counts what release programs are made for, into tests/bench/weft.profdata
	@$(INSTALL) build bench profile
	tests/bench/profile.sh $(COUNTS)

bench-scale: cluster-build ## clusters of up to 100,000 pods with 200 nodes, Gateways with up to 40,000 routes; ARGS="--only gateway --routes 1000 --out scale.json"
	@$(INSTALL) build cluster
	cargo build --profile $(PROFILE) -p weft-controller -p weft-ca -p weft-node-proxy -p weft-scale --bins
	tests/scale/run.sh $(BUILT)/$(BUILD_DIR) $(ARGS)

cluster-build: ## Kubernetes, Helm and the conformance suite for the test cluster, into the cache
	@$(INSTALL) cluster
	@tests/cluster/build.sh $(WEFT_CACHE)/cluster >$(WEFT_CACHE)/cluster.log 2>&1 || { tail -20 $(WEFT_CACHE)/cluster.log; exit 1; }

cluster-up: cluster-build ## a Kubernetes of two nodes on this machine with Weft installed; NAME=dev NODES=2
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	tests/cluster/up.sh $(NAME)
	tests/cluster/install.sh $(NAME) $(CARGO_TARGET_DIR)/images

cluster-down: ## takes that cluster down
	tests/cluster/down.sh $(NAME)

cluster-test: cluster-build ## installs by Helm on a fresh cluster and runs the whole conformance suite and our tests there
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	tests/cluster/test.sh $(CARGO_TARGET_DIR)/images

soak: cluster-build ## an hour of churn on a fresh cluster, after which no process may have grown; HOURS=24
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	WEFT_ONLY=soak:: WEFT_SOAK_SECONDS=$$(($(HOURS) * 3600)) tests/cluster/test.sh $(CARGO_TARGET_DIR)/images

skew: cluster-build ## an older version's data plane with the control plane of now and the other way round, on a fresh cluster; FROM=git ref
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	tests/cluster/skew.sh $(CARGO_TARGET_DIR)/images $(FROM)

elsewhere: cluster-build ## real cert-manager, ACME and external-dns with Gateways, on a fresh cluster
	@tests/elsewhere/build.sh $(WEFT_CACHE)/elsewhere >$(WEFT_CACHE)/elsewhere.log 2>&1 || { tail -20 $(WEFT_CACHE)/elsewhere.log; exit 1; }
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	tests/elsewhere/run.sh $(CARGO_TARGET_DIR)/images $(WEFT_CACHE)/elsewhere

conformance: cluster-build ## the official conformance suite whole, RUNS times on a fresh cluster; reports in REPORTS
	$(MAKE) images PROFILE=dev OUT=$(CARGO_TARGET_DIR)/images TAG=$(VERSION)
	tests/cluster/test.sh $(CARGO_TARGET_DIR)/images $(RUNS) $(REPORTS)

images: ## one docker-archive per component for `ctr images import` and `docker load`: OUT=dir TAG=name ARCH=arm64 PROFILE=release
	@$(INSTALL) build images images-$(ARCH)
	cargo build --profile $(PROFILE) --bins
	python3 images/build.py $(OUT) $(BUILT)/$(BUILD_DIR) $(TAG) $(ARCH)

sbom: ## what each program is made of, as CycloneDX, in SBOM=dist/sbom; ARCH=arm64
	@$(INSTALL) build release
	images/sbom.sh $(SBOM) $(CARGO_BUILD_TARGET)

# Helm of the test cluster packs the charts.
release: ## programs and images for amd64 and arm64, charts, SBOMs and checksums of the chart's version, in RELEASE=dist/release; DRAFT=1 from a tree as it is
	images/release.sh check $(VERSION) $(DRAFT)
	@$(INSTALL) build release
	$(MAKE) cluster-build
	rm -rf $(RELEASE)
	for arch in amd64 arm64; do $(MAKE) images ARCH=$$arch OUT=$(RELEASE)/images/$$arch TAG=$(VERSION) PROFILE=$(PROFILE) || exit 1; done
	PATH=$(WEFT_CACHE)/cluster/bin:$$PATH images/release.sh pack $(RELEASE) $(VERSION) $(CARGO_TARGET_DIR) $(BUILD_DIR)

clean: ## remove what was built here; the cache stays
	cargo clean

.PHONY: help build test test-full lint unit fuzz demo pictures bench profile bench-scale images sbom release cluster-build cluster-up cluster-down cluster-test skew soak elsewhere conformance clean
