#!/usr/bin/env bash
# A fresh cluster, Weft by Helm, and on it: the whole official conformance suite, then our own tests. Everything is
# taken down again, and what a failure needs is collected first. With RUNS nothing but the suite, that often, with a report
# of each in REPORTS_DIR. With WEFT_ONLY nothing but our tests of that name. Usage: test.sh IMAGES_DIR [RUNS REPORTS_DIR]
set -euo pipefail
images=${1:?usage: test.sh IMAGES_DIR [RUNS REPORTS_DIR]} runs=${2:-} reports=${3:-}
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
suite() { # suite REPORT
    local log=$CLUSTER_DIR/log/conformance.log passed
    "$here/conformance.sh" "$name" all "$1" >"$log" 2>&1 || {
        grep -E '^ *--- FAIL' "$log" || tail -30 "$log"
        exit 1
    }
    passed=$(grep -cE '^    --- PASS: TestConformance/' "$log")
    echo "$passed tests of the suite passed"
    [ "$passed" = 153 ] || { echo "the suite has 153" >&2; exit 1; }
    # Ours, and the suite again, begin when its namespaces are gone.
    local deadline=$((SECONDS + 120))
    while [ -n "$("$CLUSTER_DIR/k" get namespaces -l gateway-conformance -o name)" ]; do
        [ $SECONDS -lt $deadline ] || { echo "the suite's namespaces don't go" >&2; exit 1; }
        sleep 1
    done
}
step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
if [ -z "$runs${WEFT_ONLY:-}" ]; then
    step "charts, tokens, ways to install, commands and examples that need no nodes"
    PATH=$build/bin:$PATH cargo test --workspace --quiet --test charts --test tokens --test install --test teams --test manual -- --ignored
fi
step "cluster"
"$here/up.sh" "$name"
"$here/load.sh" "$name" "$images"
step "the quickstart, line by line"
"$here/quickstart.py" "$CLUSTER_DIR" "$build/crds"
if [ -n "$runs" ]; then
    mkdir -p "$reports"
    for run in $(seq "$runs"); do
        step "conformance: all seven profiles, $run of $runs"
        suite "$(realpath "$reports")/report-$run.yaml"
    done
    step "done"
    exit
fi
if [ -n "${WEFT_ONLY:-}" ]; then
    step "our tests $WEFT_ONLY"
    cargo test --workspace --quiet --test cluster -- --ignored --test-threads=1 --nocapture "$WEFT_ONLY"
    step "done"
    exit
fi
step "conformance: all seven profiles"
suite "$CLUSTER_DIR/report.yaml"
step "our own tests"
# Outages and the like take a quarter of an hour, an hour of churn an hour: `make test-full` has them all.
skip=()
if [ -z "${WEFT_ALL:-}" ]; then
    for tests in exhausted:: identity:: life:: one_node_is_upgraded_first outages:: soak:: wayback:: the_guides_from_the_first_day_to_the_way_back; do skip+=(--skip "$tests"); done
fi
cargo test --workspace --quiet --test cluster -- --ignored --test-threads=1 "${skip[@]}"
step "done"
