#!/usr/bin/env bash
# Takes down what up.sh brought up under this name, and nothing else. Usage: down.sh NAME [keep-logs]
name=${1:?usage: down.sh NAME}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
cd "$dir" 2>/dev/null || exit 0
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"
mapfile -t nodes < <(find . -maxdepth 1 -name 'node*' -type d -printf '%f\n')

for file in pid/*; do kill -- "-$(cat "$file")" 2>/dev/null; done
sleep 1
for file in pid/*; do kill -9 -- "-$(cat "$file")" 2>/dev/null; done
for node in "${nodes[@]}"; do
    end_processes "$node"
done
sleep 0.5
for node in "${nodes[@]}"; do
    ip netns del "$name-$node" 2>/dev/null
    groups_of "$node" | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
done
ip netns del "$name-cp" 2>/dev/null
awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null
cd /
if [ "${2:-}" = keep-logs ]; then
    find "$dir" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
else
    rm -rf "$dir"
fi
exit 0
