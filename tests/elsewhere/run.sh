#!/usr/bin/env bash
# A test cluster with Weft on it, and beside its API server cert-manager, pebble (an ACME server) with a resolver of its own;
# then what tests/tests/elsewhere.rs says of them. Everything is taken down again, and what a failure needs is collected first.
# Usage: run.sh IMAGES_DIR ELSEWHERE_DIR       ELSEWHERE_DIR is what build.sh made
set -euo pipefail
images=${1:?usage: run.sh IMAGES_DIR ELSEWHERE_DIR} made=$(realpath "${2:?usage: run.sh IMAGES_DIR ELSEWHERE_DIR}")
here=$(cd "$(dirname "$0")" && pwd)
cluster=$here/../cluster
name=elsewhere$$
export CLUSTER_DIR=/tmp/weft-cluster-$name WEFT_CLUSTER=/tmp/weft-cluster-$name WEFT_ELSEWHERE=$made
logs=${WEFT_CACHE:-$HOME/.cache/weft}/elsewhere-logs
# What every name of a challenge leads to: the Gateway of the test asks for this address.
address=10.201.0.200

ended() {
    if [ "$1" != 0 ]; then
        echo "FAILED: logs in $logs" >&2
        rm -rf "$logs"
        "$cluster/logs.sh" "$name" "$logs" || true
    fi
    "$cluster/down.sh" "$name"
}
trap 'ended $?' EXIT

beside() { # beside NAME COMMAND...: in the network of the API server, in a session of its own, which down.sh ends as a whole
    setsid "$CLUSTER_DIR/in-cp" "${@:2}" >>"$CLUSTER_DIR/log/$1.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/pid/$1"
}

"$cluster/up.sh" "$name"
"$cluster/load.sh" "$name" "$made/images"
"$cluster/install.sh" "$name" "$images"
"$CLUSTER_DIR/k" apply --server-side -f "$made/crds" >/dev/null
"$CLUSTER_DIR/k" wait --for=condition=Established --timeout=60s crd --all >/dev/null
"$CLUSTER_DIR/k" create namespace cert-manager >/dev/null
sed "s#@PKI@#$made/pki#" "$here/pebble.json" >"$CLUSTER_DIR/pebble.json"
beside resolver "$made/bin/pebble-challtestsrv" -dnsserver 127.0.0.1:8053 -defaultIPv4 "$address" -defaultIPv6 "" \
    -http01 "" -https01 "" -tlsalpn01 "" -doh "" -management 127.0.0.1:8055
# It sleeps before it looks, and refuses good nonces now and then, unless it is told not to.
beside pebble env PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 "$made/bin/pebble" -config "$CLUSTER_DIR/pebble.json" -dnsserver 127.0.0.1:8053
beside cert-manager "$made/bin/cert-manager" -kubeconfig "$CLUSTER_DIR/admin.kubeconfig" -nameserver 127.0.0.1:8053
cargo test --workspace --quiet --test elsewhere -- --ignored --test-threads=1
