#!/usr/bin/env bash
# Takes down what up.sh brought up under this name, and nothing else. Usage: down.sh NAME [keep-logs]
name=${1:?usage: down.sh NAME}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
export PATH=$PATH:/usr/sbin:/sbin
cd "$dir" 2>/dev/null || exit 0
mapfile -t nodes < <(find . -maxdepth 1 -name 'node*' -type d -printf '%f\n')

groups_of() { # groups_of NODE: its cgroups in every hierarchy
    local found
    for found in /sys/fs/cgroup/*/"$name-$1" /sys/fs/cgroup/"$name-$1"; do [ ! -d "$found" ] || echo "$found"; done
}

for file in pid/*; do kill -- "-$(cat "$file")" 2>/dev/null; done
sleep 1
for file in pid/*; do kill -9 -- "-$(cat "$file")" 2>/dev/null; done
for node in "${nodes[@]}"; do
    # Pods, and what stands between them and containerd.
    groups_of "$node" | while read -r group; do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null; done | sort -u | xargs -r kill -9 2>/dev/null
    ip netns pids "$name-$node" 2>/dev/null | xargs -r kill -9 2>/dev/null
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
