#!/usr/bin/env bash
# Collects what a failed test needs. Usage: logs.sh NAME OUT_DIR
set -uo pipefail
name=${1:?usage: logs.sh NAME OUT_DIR} out=${2:?usage: logs.sh NAME OUT_DIR}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
[ -x "$dir/k" ] || { echo "no cluster was up, so there are no logs of one"; exit; }
mkdir -p "$out"
cp "$dir"/log/*.log "$out"/ 2>/dev/null
k() { timeout 20 "$dir/k" "$@" 2>&1; }
k get all,endpointslices,gateways,httproutes,grpcroutes,meshpolicies,authorizationpolicies -A -o wide >"$out/objects.txt"
k get events -A --sort-by=.lastTimestamp >"$out/events.txt"
k get httproutes,grpcroutes,meshpolicies,authorizationpolicies,leases,configmaps -A -o yaml >"$out/objects.yaml"
k describe nodes >"$out/nodes.txt"
for pod in $(k -n weft-system get pods -o name); do
    k -n weft-system logs "$pod" --all-containers --prefix --tail=2000 >"$out/${pod#pod/}.log"
    k -n weft-system logs "$pod" --all-containers --prefix --previous --tail=500 >"$out/${pod#pod/}.previous.log"
    k -n weft-system describe "$pod" >"$out/${pod#pod/}.txt"
done
find "$out" -size 0 -delete
echo "collected in $out"
