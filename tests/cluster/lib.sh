# What up.sh and reboot.sh have in common: a cluster's addresses, and how its nodes start. To be sourced, in the
# cluster's folder, with name, here, build, bin and dir set.
# shellcheck shell=bash disable=SC2034,SC2154
# Addresses are the same in every cluster: each has namespaces of its own.
node4=10.200.0 node6=fd00:200::      # nodes: .1 is the control plane, .1N node N
svc4=10.96 svc6=fd00:96::            # Services
pod4=10.244 pod6=fd00:244            # pods: one /24 and one /64 for each node
lb4=10.201.0 lb6=fd00:201::          # load balancers

in_ns() { # in_ns NETNS COMMAND...: the path is given so that a node's own /run/netns doesn't matter
    nsenter "--net=/run/netns/$name-$1" "${@:2}"
}

start() { # start NAME COMMAND...: in a session of its own, to be ended as a whole
    setsid "${@:2}" >>"log/$1.log" 2>&1 </dev/null &
    echo $! >"pid/$1"
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "waited in vain for $what" >&2; return 1; }
        sleep 0.2
    done
}

# The files of node $1.
node_files() {
    local i=$1 home=$dir/node$1 group
    mkdir -p "$home"/{kubelet,containerd,run-containerd,cni-conf,cni-bin,cni-state,run-weft,var-weft,log-pods,log-containers}
    cp -n /usr/lib/cni/* "$home/cni-bin/"
    : >"$dir/resolv.conf"
    sed -e "s/@POD4@/$pod4.$i.0\/24/" -e "s/@POD6@/$pod6:$i::\/64/" "$here/node/podnet.conflist" >"$home/cni-conf/10-podnet.conflist"
    cp "$here/node/containerd.toml" "$home/containerd.toml"
    sed -e "s#@DIR@#$dir#g" -e "s/@NODE@/node$i/g" -e "s/@CGROUP@/$name-node$i/" -e "s/@DNS@/$svc4.0.10/" "$here/node/kubelet.yaml" >"$home/kubelet.yaml"
    # Each kubelet has a tree of its own, which has to be there in every controller.
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        mkdir -p "/sys/fs/cgroup/$name-node$i"
    fi
    for group in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
        [ ! -d /sys/fs/cgroup/$group ] || mkdir -p "/sys/fs/cgroup/$group/$name-node$i"
    done
    # A node is many processes, and what else this machine does isn't to starve it.
    for group in /sys/fs/cgroup/{cpu,}/"$name-node$i"/cpu.{shares,weight}; do
        [ ! -f "$group" ] || echo 10000 >"$group"
    done
    if [ -d "/sys/fs/cgroup/cpuset/$name-node$i" ]; then
        for group in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$group" >"/sys/fs/cgroup/cpuset/$name-node$i/cpuset.$group"; done
    fi
}

node() { # node I: its mounts and containerd
    local i=$1 enter
    start "node$i-containerd" nsenter "--net=/run/netns/$name-node$i" unshare -m -u bash "$here/node/enter.sh" "node$i" "$dir/node$i"
    enter=(nsenter -t "$(cat "pid/node$i-containerd")" -m -u -n)
    printf '#!/bin/sh\nexec %s "$@"\n' "${enter[*]}" >"in-node$i"
    chmod +x "in-node$i"
}

node_join() { # node_join I: images, kubelet, kube-proxy
    local i=$1 image
    wait_for 30 "containerd on node$i" "./in-node$i" ctr version
    for image in "$build"/images/*.tar; do "./in-node$i" ctr -n k8s.io images import "$image" >/dev/null; done
    start "node$i-kubelet" "./in-node$i" "$bin/kubelet" --config="$dir/node$i/kubelet.yaml" --kubeconfig="$dir/node$i.kubeconfig" \
        --hostname-override="node$i" --node-ip="$node4.1$i,${node6}1$i"
    start "node$i-proxy" "./in-node$i" "$bin/kube-proxy" --kubeconfig="$dir/proxy.kubeconfig" --hostname-override="node$i" --proxy-mode=nftables \
        --cluster-cidr="$pod4.0.0/16,$pod6::/48" --oom-score-adj=0 --conntrack-max-per-core=0
}

groups_of() { # groups_of NODE: its cgroups in every hierarchy
    local found
    for found in /sys/fs/cgroup/*/"$name-$1" /sys/fs/cgroup/"$name-$1"; do [ ! -d "$found" ] || echo "$found"; done
}

end_processes() { # end_processes NODE: its pods', and what stands between them and containerd
    local group
    groups_of "$1" | while read -r group; do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null; done | sort -u | xargs -r kill -9 2>/dev/null || true
    ip netns pids "$name-$1" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
}
