#!/usr/bin/env bash
# Applies the Gateway API's CRDs of the suite's version. Usage: crds.sh NAME [standard|experimental]
set -euo pipefail
name=${1:?usage: crds.sh NAME [standard|experimental]} channel=${2:-experimental}
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
args=()
for file in "$build/crds/$channel"/*.yaml; do
    case $file in *kustomization*) ;; *) args+=(-f "$file") ;; esac
done
if [ "$channel" = experimental ]; then
    # A policy of the standard channel keeps this one from being put over it, and the API server goes by it for a while
    # after it has gone.
    "$dir/k" delete validatingadmissionpolicybinding safe-upgrades.gateway.networking.k8s.io --ignore-not-found >/dev/null
    deadline=$((SECONDS + 60))
    until refused=$("$dir/k" apply --server-side --dry-run=server "${args[@]}" 2>&1 >/dev/null); do
        [ $SECONDS -lt $deadline ] || { echo "$refused" >&2; exit 1; }
        sleep 0.2
    done
fi
"$dir/k" apply --server-side "${args[@]}" >/dev/null
"$dir/k" wait --for=condition=Established --timeout=60s crd --all >/dev/null
