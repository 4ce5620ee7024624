#!/usr/bin/env bash
# Pulls the plug of a node of a test cluster and starts it again: processes, mounts, interfaces, rules and /run are
# gone, the disk stays. Usage: reboot.sh NAME NODE     such as node1
set -euo pipefail
name=${1:?usage: reboot.sh NAME NODE} node=${2:?usage: reboot.sh NAME NODE}
here=$(cd "$(dirname "$0")" && pwd)
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
bin=$build/bin
export PATH=$PATH:/usr/sbin:/sbin
cd "$dir"
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"

for part in kubelet proxy containerd; do kill -9 -- "-$(cat "pid/$node-$part")" 2>/dev/null || true; done
end_processes "$node"
remove_groups() { # those below the node's own
    local groups
    mapfile -t groups < <(groups_of "$node")
    find "${groups[@]}" -mindepth 1 -depth -type d -exec rmdir {} + || true
    [ -z "$(find "${groups[@]}" -mindepth 1 -type d)" ]
}
wait_for 10 "the processes of $node to end" remove_groups
in_ns "$node" nft flush ruleset
in_ns "$node" ip -o link | awk -F': ' '$2 ~ /^(cni|veth)/ {sub(/@.*/, "", $2); print $2}' | while read -r link; do
    in_ns "$node" ip link del "$link" 2>/dev/null || true
done
rm -rf "$dir/$node"/run-*
mkdir "$dir/$node"/run-{containerd,weft}
node "${node#node}"
node_join "${node#node}"
