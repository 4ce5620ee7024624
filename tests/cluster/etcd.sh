#!/usr/bin/env bash
# A backup of a test cluster's etcd, and its way back. Usage: etcd.sh NAME save|restore
# Both stop etcd for a moment. What was written since `save` is gone after `restore`, and revisions begin again where they
# were then; the control plane is started anew, as the manual of Kubernetes asks for, and nothing else is told.
set -euo pipefail
usage='usage: etcd.sh NAME save|restore'
name=${1:?$usage} what=${2:?$usage}
cd "${CLUSTER_DIR:-/tmp/weft-cluster-$name}"

stop() { # stop PART: how it was started is in $command
    local pid
    pid=$(cat "pid/$1")
    mapfile -d '' -t command <"/proc/$pid/cmdline"
    kill "-${2:-TERM}" "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
start() { # start PART COMMAND...
    setsid nsenter "--net=/run/netns/$name-cp" "${@:2}" >>"log/$1.log" 2>&1 </dev/null &
    echo $! >"pid/$1"
}

declare -a command
if [ "$what" = save ]; then
    stop etcd
    rm -rf etcd.saved
    cp -a etcd etcd.saved
    start etcd "${command[@]}"
    exit
fi
[ "$what" = restore ] || { echo "$usage" >&2; exit 1; }
declare -A commands
for part in sched kcm apiserver etcd; do
    stop "$part" KILL
    commands[$part]=$(printf '%q ' "${command[@]}")
done
rm -rf etcd
mv etcd.saved etcd
for part in etcd apiserver kcm sched; do
    eval "start $part ${commands[$part]}"
done
