#!/usr/bin/env bash
# A control plane of Kubernetes without nodes, and on it the benchmark; everything is taken down again. The programs are in
# BINARIES. Usage: run.sh BINARIES [ARGUMENTS of weft-scale...]
set -euo pipefail
binaries=$(realpath "${1:?usage: run.sh BINARIES [ARGUMENTS...]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cluster=$here/../cluster
name=scale$$
export CLUSTER_DIR=/tmp/weft-cluster-$name
cache=${WEFT_CACHE:-$HOME/.cache/weft}
logs=$cache/scale-logs

ended() {
    if [ "$1" != 0 ] && [ -d "$CLUSTER_DIR" ]; then
        echo "FAILED: logs in $logs" >&2
        rm -rf "$logs"
        mkdir -p "$logs"
        cp "$CLUSTER_DIR"/log/*.log "$CLUSTER_DIR"/run/*.log "$logs" 2>/dev/null || true
    fi
    "$cluster/down.sh" "$name"
}
trap 'ended $?' EXIT
trap 'exit 130' INT TERM

NODES=0 "$cluster/up.sh" "$name" >/dev/null
"$cluster/crds.sh" "$name" experimental
"$CLUSTER_DIR/k" apply --server-side -f "$here/../../charts/weft-crds/templates" >/dev/null
# In a session of its own, which down.sh ends as a whole.
setsid "$CLUSTER_DIR/in-cp" "$binaries/weft-scale" --programs "$binaries" --folder "$CLUSTER_DIR/run" "$@" &
echo $! >"$CLUSTER_DIR/pid/scale"
wait $!
