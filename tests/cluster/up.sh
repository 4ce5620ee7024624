#!/usr/bin/env bash
# A real Kubernetes of several nodes on one machine. The control plane and every node live in network namespaces of
# their own with no way out, so nothing the cluster sends can leave the machine. A node also has its own mount and UTS
# namespace, so that /etc/cni, /opt/cni, /var/lib/kubelet and /run/netns are its own, as on real machines.
#
# Usage: up.sh NAME        Clusters of different names stand side by side. Ready in about 20 s.
#   CLUSTER_BUILD  what build.sh made (default: $WEFT_CACHE/cluster)
#   CLUSTER_DIR    everything of this cluster (default: /tmp/weft-cluster-NAME)
#   NODES          how many (default: 2); 0 is an API server alone, for objects that nothing runs
# Then: $CLUSTER_DIR/k get nodes; $CLUSTER_DIR/in-cp COMMAND; $CLUSTER_DIR/in-node1 COMMAND. Outside the namespaces
# the cluster's addresses mean nothing.
set -euo pipefail
name=${1:?usage: up.sh NAME}
here=$(cd "$(dirname "$0")" && pwd)
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
nodes=${NODES:-2}
bin=$build/bin
export PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=tests/cluster/versions.env
. "$here/versions.env"
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"
[ -x "$bin/kubelet" ] || { echo "nothing in $build: run make cluster-build" >&2; exit 1; }
[ ! -e "$dir" ] || { echo "$dir is there: run down.sh $name first" >&2; exit 1; }
mkdir -p "$dir"/{pki,log,pid}
cd "$dir"

ended() {
    [ "$1" != 0 ] || return 0
    echo "the cluster did not come up; logs in $dir/log" >&2
    tail -n 3 "$dir"/log/*.log >&2
    "$here/down.sh" "$name" keep-logs
}
trap 'ended $?' EXIT

certificate() { # certificate NAME SUBJECT [SUBJECT_ALT_NAMES]
    local extensions=extendedKeyUsage=serverAuth,clientAuth
    [ -z "${3:-}" ] || extensions+=$'\n'"subjectAltName=$3"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
    openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 3650 -out "pki/$1.crt" \
        -extfile <(echo "$extensions") 2>/dev/null
}

kubeconfig() { # kubeconfig NAME
    cat >"$1.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$node4.1:6443", certificate-authority: $dir/pki/ca.crt}}]
users: [{name: u, user: {client-certificate: $dir/pki/$1.crt, client-key: $dir/pki/$1.key}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
K
}

certificates() {
    local i
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout pki/ca.key -out pki/ca.crt -days 3650 -subj /CN=kube-ca 2>/dev/null
    certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$node4.1,IP:$svc4.0.1,IP:${svc6}1"
    certificate admin /O=system:masters/CN=admin
    certificate kcm /CN=system:kube-controller-manager
    certificate sched /CN=system:kube-scheduler
    certificate proxy /CN=system:kube-proxy
    certificate front /CN=front-proxy
    for i in $(seq "$nodes"); do
        certificate "node$i" "/O=system:nodes/CN=system:node:node$i" "DNS:node$i,IP:$node4.1$i,IP:${node6}1$i"
        kubeconfig "node$i"
    done
    for i in admin kcm sched proxy; do kubeconfig "$i"; done
    openssl genrsa -out pki/sa.key 2048 2>/dev/null
    openssl rsa -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null
    printf '#!/bin/sh\nexec nsenter --net=/run/netns/%s-cp %s --kubeconfig %s "$@"\n' "$name" "$bin/kubectl" "$dir/admin.kubeconfig" >k
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nKUBECONFIG=%s PATH=%s:$PATH exec nsenter --net=/run/netns/%s-cp "$@"\n' "$dir/admin.kubeconfig" "$bin" "$name" >in-cp
    chmod +x k in-cp
}

forward() { # forward NETNS: it routes, and takes what comes by any way
    in_ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
        net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

# A bridge in the control plane's namespace, and a cable to each node.
network() {
    local i j cp=$name-cp
    ip netns add "$cp"
    forward cp
    ip -n "$cp" link set lo up
    ip -n "$cp" link add br0 type bridge
    ip -n "$cp" addr add "$node4.1/24" dev br0
    ip -n "$cp" addr add "${node6}1/64" dev br0 nodad
    ip -n "$cp" link set br0 up
    for i in $(seq "$nodes"); do
        local node=$name-node$i
        ip netns add "$node"
        forward "node$i"
        ip -n "$node" link set lo up
        ip link add eth0 netns "$node" type veth peer name "n$i" netns "$cp"
        ip -n "$cp" link set "n$i" master br0 up
        ip -n "$node" addr add "$node4.1$i/24" dev eth0
        ip -n "$node" addr add "${node6}1$i/64" dev eth0 nodad
        ip -n "$node" link set eth0 up
        ip -n "$node" route add default via "$node4.1"
        ip -n "$node" -6 route add default via "${node6}1"
        # An address of a load balancer that nothing is known of yet: said at once, or the packet would go round in circles, and
        # its connection with it even when the address is known.
        ip -n "$node" rule add iif eth0 to "$lb4.0/24" unreachable
        ip -n "$node" -6 rule add iif eth0 to "${lb6}/112" unreachable
        ip -n "$cp" route add "$pod4.$i.0/24" via "$node4.1$i"
        ip -n "$cp" -6 route add "$pod6:$i::/64" via "${node6}1$i"
    done
    for i in $(seq "$nodes"); do
        for j in $(seq "$nodes"); do
            [ "$i" = "$j" ] && continue
            ip -n "$name-node$i" route add "$pod4.$j.0/24" via "$node4.1$j"
            ip -n "$name-node$i" -6 route add "$pod6:$j::/64" via "${node6}1$j"
        done
    done
    # Clients in the control plane's namespace enter at the first node.
    ip -n "$cp" route add "$lb4.0/24" via "$node4.11"
    ip -n "$cp" route add "$svc4.0.0/16" via "$node4.11"
    ip -n "$cp" -6 route add "${lb6}/112" via "${node6}11"
    ip -n "$cp" -6 route add "${svc6}/112" via "${node6}11"
}

control_plane() {
    local cp=(nsenter "--net=/run/netns/$name-cp")
    start etcd "${cp[@]}" "$bin/etcd" --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
    start apiserver "${cp[@]}" "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$node4.1" --secure-port=6443 \
        --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
        --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key --kubelet-certificate-authority=pki/ca.crt \
        --kubelet-preferred-address-types=InternalIP --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key \
        --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range="$svc4.0.0/16,${svc6}/112" \
        --authorization-mode=Node,RBAC --allow-privileged=true --enable-admission-plugins=NodeRestriction \
        --requestheader-client-ca-file=pki/ca.crt --requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User \
        --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file=pki/front.crt --proxy-client-key-file=pki/front.key
    # Without nodes nothing schedules, and nothing finds out that nobody answers for the objects of nodes.
    [ "$nodes" -gt 0 ] || return 0
    start kcm "${cp[@]}" "$bin/kube-controller-manager" --kubeconfig=kcm.kubeconfig --service-account-private-key-file=pki/sa.key \
        --root-ca-file=pki/ca.crt --cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key \
        --use-service-account-credentials --leader-elect=false
    start sched "${cp[@]}" "$bin/kube-scheduler" --kubeconfig=sched.kubeconfig --leader-elect=false
}

ready_nodes() {
    [ "$(./k get nodes --no-headers 2>/dev/null | grep -c ' Ready')" = "$nodes" ]
}

# Zones and pod ranges, as a cloud's controller would set them.
describe_nodes() {
    local i
    for i in $(seq "$nodes"); do
        ./k patch node "node$i" -p "{\"spec\":{\"podCIDR\":\"$pod4.$i.0/24\",\"podCIDRs\":[\"$pod4.$i.0/24\",\"$pod6:$i::/64\"]}}" >/dev/null
        ./k label node "node$i" "topology.kubernetes.io/zone=zone-$i" topology.kubernetes.io/region=here >/dev/null
    done
}

certificates
network
control_plane
for i in $(seq "$nodes"); do
    node_files "$i"
    node "$i"
done
for i in $(seq "$nodes"); do node_join "$i"; done
wait_for 60 "the API server" ./k get --raw /readyz
if [ "$nodes" = 0 ]; then
    echo "$dir"
    exit 0
fi
wait_for 90 "nodes that are Ready" ready_nodes
describe_nodes
sed -e "s/@DNS@/$svc4.0.10/" -e "s/@VERSION@/$COREDNS/" -e "s/@NODE4@/$node4/" -e "s/@NODE6@/$node6/" \
    -e "s/@SVC4@/$svc4/" -e "s/@POD4@/$pod4/" "$here/node/coredns.yaml" | ./k apply -f - >/dev/null
start lb bash "$here/lb.sh" "$dir" "$lb4" "$lb6"
echo "$dir"
