#!/usr/bin/env bash
# Kills a process of a test cluster without warning and starts it again with the same arguments, at once or after some seconds.
# Usage: restart.sh NAME COMPONENT [SECONDS]     apiserver, kcm, node1-kubelet, ...: the names in the cluster's folder pid
# Without an API server for LEASE seconds, controller manager and scheduler end, and start again when it is back: elsewhere
# they do that because they can't renew the lease that makes one replica of them the leader, and here there is no lease.
# Those that stayed would judge nodes by what they heard of them before, and call all of them lost.
set -euo pipefail
LEASE=10
name=${1:?usage: restart.sh NAME COMPONENT [SECONDS]} component=${2:?usage: restart.sh NAME COMPONENT [SECONDS]} seconds=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
cd "${CLUSTER_DIR:-/tmp/weft-cluster-$name}"
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"

declare -A again
end() { # end PART: how it is started again is kept
    local pid n m u cwd command
    pid=$(cat "pid/$1")
    mapfile -d '' -t command <"/proc/$pid/cmdline"
    # What it was started with has taken the place of nsenter by now, in the right namespaces; so those are entered again.
    exec {n}<"/proc/$pid/ns/net" {m}<"/proc/$pid/ns/mnt" {u}<"/proc/$pid/ns/uts"
    cwd=$(readlink "/proc/$pid/cwd")
    again[$1]=$(printf '%q ' nsenter "--net=/proc/self/fd/$n" "--mount=/proc/self/fd/$m" "--uts=/proc/self/fd/$u" "--wd=$cwd" "${command[@]}")
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
begin() { # begin PART
    eval "start $1 ${again[$1]}"
}

followers=()
[ "$component" != apiserver ] || [ "$seconds" -lt $LEASE ] || [ ! -e pid/kcm ] || followers=(kcm sched)
end "$component"
[ ${#followers[@]} = 0 ] || sleep $LEASE
for part in "${followers[@]}"; do end "$part"; done
sleep $((seconds - (${#followers[@]} > 0 ? LEASE : 0)))
begin "$component"
[ ${#followers[@]} = 0 ] || wait_for 60 "the API server" ./k get --raw /readyz
for part in "${followers[@]}"; do begin "$part"; done
