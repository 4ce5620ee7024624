#!/usr/bin/env bash
# Builds cert-manager's controllers and solver, pebble and external-dns from their Go modules.
# Usage: build.sh OUT_DIR      What is there already is left alone. About 10 minutes on 2 cores from nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/elsewhere/versions.env
. "$here/versions.env"
out=$(mkdir -p "$1" && cd "$1" && pwd)
bin=$out/bin
# What is built belongs to these versions: others start anew.
if ! cmp -s "$here/versions.env" "$out/versions.env"; then
    rm -rf "$bin" "$out/crds" "$out/images" "$out/pki"
    cp "$here/versions.env" "$out/versions.env"
fi
mkdir -p "$bin" "$out/mod" "$out/images" "$out/pki"
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=mod"
strip='-s -w'

module() { # module NAME: a module of our own that pulls in what is built
    mkdir -p "$out/mod/$1"
    cd "$out/mod/$1"
    [ -f go.mod ] || printf 'module build/%s\n\ngo 1.26\n' "$1" >go.mod
}

tool() { # tool NAME MODULE@VERSION PACKAGE
    [ -x "$bin/$1" ] && return
    echo "building $1"
    module "$1"
    go get -tool "$3@${2#*@}"
    go build -trimpath -ldflags "$strip" -o "$bin/$1" "$3"
}

ours() { # ours NAME: a program of this folder, with the modules of cert-manager
    [ ! "$bin/$1" -nt "$here/$1/main.go" ] || return 0
    echo "building $1"
    module "$1"
    cp "$here/$1/main.go" .
    go get "github.com/cert-manager/cert-manager@v$CERT_MANAGER"
    go build -trimpath -ldflags "$strip" -o "$bin/$1" .
}

folder() { # folder MODULE@VERSION: where its files are
    go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'
}

ours cert-manager
ours acmesolver
acme=github.com/letsencrypt/pebble/v2
tool pebble "$acme@v$PEBBLE" "$acme/cmd/pebble"
tool pebble-challtestsrv "$acme@v$PEBBLE" "$acme/cmd/pebble-challtestsrv"
# A module far behind it has moved: by its old name it can't be had any more.
module external-dns
go mod edit -replace vbom.ml/util=github.com/fvbommel/util@v0.0.0-20160121211510-db5cfe13f5cc
tool external-dns "sigs.k8s.io/external-dns@v$EXTERNAL_DNS" sigs.k8s.io/external-dns
if [ ! -d "$out/crds" ]; then
    rm -rf "$out/crds.tmp"
    mkdir -p "$out/crds.tmp"
    cp "$(folder "github.com/cert-manager/cert-manager@v$CERT_MANAGER")"/deploy/crds/*.yaml "$out/crds.tmp"
    chmod -R u+w "$out/crds.tmp"
    mv "$out/crds.tmp" "$out/crds"
fi
# The certificate of pebble's own API, and the authority of that.
certs=$(folder "$acme@v$PEBBLE")/test/certs
for file in pebble.minica.pem localhost/cert.pem localhost/key.pem; do
    install -m 0644 "$certs/$file" "$out/pki/${file##*/}"
done
if [ ! "$out/images/acmesolver.tar" -nt "$bin/acmesolver" ]; then
    python3 "$here/../cluster/image.py" "$out/images/acmesolver.tmp" localhost/acmesolver:1 /acmesolver "$bin/acmesolver:/acmesolver"
    mv "$out/images/acmesolver.tmp" "$out/images/acmesolver.tar"
fi
