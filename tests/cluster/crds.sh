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
"$dir/k" apply --server-side "${args[@]}" >/dev/null
"$dir/k" wait --for=condition=Established --timeout=60s crd --all >/dev/null
