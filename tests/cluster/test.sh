#!/usr/bin/env bash
# A fresh cluster, Weft by Helm, and on it: the whole official conformance suite, then our own tests. Everything is
# taken down again, and what a failure needs is collected first. Usage: test.sh IMAGES_DIR
set -euo pipefail
images=${1:?usage: test.sh IMAGES_DIR}
here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${KUBECONFIG:-}" ]; then
    # Somebody else's cluster, with Weft on it and the test images on its nodes: see README.md.
    cargo test --workspace --quiet --test cluster -- --ignored --test-threads=1
    exit
fi
name=test$$
export CLUSTER_DIR=/tmp/weft-cluster-$name WEFT_CLUSTER=/tmp/weft-cluster-$name
logs=${WEFT_CACHE:-$HOME/.cache/weft}/cluster-logs

ended() {
    if [ "$1" != 0 ]; then
        echo "FAILED: logs in $logs" >&2
        rm -rf "$logs"
        "$here/logs.sh" "$name" "$logs" || true
    fi
    "$here/down.sh" "$name"
}
trap 'ended $?' EXIT
step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

step "charts, tokens, ways to install"
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
PATH=$build/bin:$PATH cargo test --workspace --quiet --test charts --test tokens --test install -- --ignored
step "cluster"
"$here/up.sh" "$name"
"$here/load.sh" "$name" "$images"
step "the quickstart, line by line"
"$here/quickstart.py" "$CLUSTER_DIR" "$build/crds"
step "conformance: all seven profiles"
mkdir -p "$CLUSTER_DIR/conformance"
"$here/conformance.sh" "$name" all "$CLUSTER_DIR/conformance/report.yaml" >"$CLUSTER_DIR/log/conformance.log" 2>&1 || {
    grep -E '^ *--- FAIL' "$CLUSTER_DIR/log/conformance.log" || tail -30 "$CLUSTER_DIR/log/conformance.log"
    exit 1
}
passed=$(grep -cE '^    --- PASS: TestConformance/' "$CLUSTER_DIR/log/conformance.log")
echo "$passed tests of the suite passed"
[ "$passed" = 153 ] || { echo "the suite has 153" >&2; exit 1; }
step "our own tests"
cargo test --workspace --quiet --test cluster -- --ignored --test-threads=1
step "done"
