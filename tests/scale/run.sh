#!/usr/bin/env bash
# A control plane of Kubernetes without nodes, and on it the benchmark; everything is taken down again. Each part has one of
# its own, so that none is measured with what another left. The programs are in BINARIES.
# Usage: run.sh BINARIES [--only mesh|gateway|listener-sets]... [ARGUMENTS of weft-scale...]      without --only: all parts
set -euo pipefail
binaries=$(realpath "${1:?usage: run.sh BINARIES [ARGUMENTS...]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cluster=$here/../cluster
name=scale$$
export CLUSTER_DIR=/tmp/weft-cluster-$name
cache=${WEFT_CACHE:-$HOME/.cache/weft}
logs=$cache/scale-logs
parts=() arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --only)
        parts+=("${2:?--only needs a part}")
        shift
        ;;
    --only=*) parts+=("${1#*=}") ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(mesh gateway listener-sets)

ended() {
    if [ "$1" != 0 ] && [ -d "$CLUSTER_DIR" ]; then
        echo "FAILED: logs in $logs" >&2
        rm -rf "$logs"
        mkdir -p "$logs"
        cp "$CLUSTER_DIR"/log/*.log "$CLUSTER_DIR"/run/*.log "$logs" 2>/dev/null || true
    fi
    [ ! -d "$CLUSTER_DIR" ] || "$cluster/down.sh" "$name"
}
trap 'ended $?' EXIT
trap 'exit 130' INT TERM

for part in "${parts[@]}"; do
    NODES=0 "$cluster/up.sh" "$name" >/dev/null
    "$cluster/crds.sh" "$name" experimental
    "$CLUSTER_DIR/k" apply --server-side -f "$here/../../charts/weft-crds/templates" >/dev/null
    # In a session of its own, which down.sh ends as a whole.
    setsid "$CLUSTER_DIR/in-cp" "$binaries/weft-scale" --programs "$binaries" --folder "$CLUSTER_DIR/run" --only "$part" "${arguments[@]}" &
    echo $! >"$CLUSTER_DIR/pid/scale"
    wait $!
    "$cluster/down.sh" "$name"
done
