#!/usr/bin/env bash
# Kills a process of a test cluster without warning and starts it again with the same arguments, at once or after some seconds.
# Usage: restart.sh NAME COMPONENT [SECONDS]     apiserver, kcm, node1-kubelet, ...: the names in the cluster's folder pid
set -euo pipefail
name=${1:?usage: restart.sh NAME COMPONENT [SECONDS]} component=${2:?usage: restart.sh NAME COMPONENT [SECONDS]} seconds=${3:-0}
cd "${CLUSTER_DIR:-/tmp/weft-cluster-$name}"
pid=$(cat "pid/$component")
mapfile -d '' -t command <"/proc/$pid/cmdline"
# What it was started with has taken the place of nsenter by now, in the right namespaces; so those are entered again.
net=/proc/$pid/ns/net mnt=/proc/$pid/ns/mnt uts=/proc/$pid/ns/uts
exec {n}<"$net" {m}<"$mnt" {u}<"$uts"
cwd=$(readlink "/proc/$pid/cwd")
kill -9 "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
sleep "$seconds"
setsid nsenter "--net=/proc/self/fd/$n" "--mount=/proc/self/fd/$m" "--uts=/proc/self/fd/$u" "--wd=$cwd" "${command[@]}" \
    >>"log/$component.log" 2>&1 </dev/null &
echo $! >"pid/$component"
