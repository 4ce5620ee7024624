#!/usr/bin/env bash
# Makes the mounts of a node and becomes its containerd. Usage: enter.sh NODE HOME, in fresh mount and UTS namespaces.
set -euo pipefail
node=$1 home=$2
hostname "$node"
for pair in kubelet:/var/lib/kubelet containerd:/var/lib/containerd run-containerd:/run/containerd cni-conf:/etc/cni/net.d \
    cni-bin:/opt/cni/bin cni-state:/var/lib/cni run-weft:/run/weft var-weft:/var/lib/weft log-pods:/var/log/pods \
    log-containers:/var/log/containers; do
    mkdir -p "${pair#*:}"
    mount --bind "$home/${pair%%:*}" "${pair#*:}"
    mount --make-rshared "${pair#*:}"
done
# Pods' namespaces: of this node alone, and seen by whoever mounts the folder from its host.
while umount -l /run/netns 2>/dev/null; do :; done
mkdir -p /run/netns
mount -t tmpfs netns /run/netns
mount --make-rshared /run/netns
exec containerd -c "$home/containerd.toml" --root /var/lib/containerd --state /run/containerd/state -a /run/containerd/containerd.sock
