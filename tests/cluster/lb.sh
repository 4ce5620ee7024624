#!/usr/bin/env bash
# Gives Services of type LoadBalancer their addresses; kube-proxy serves them. Who asks for an address that isn't from
# the range, or is taken, goes on waiting, as with a cloud's.
# Usage: lb.sh CLUSTER_DIR PREFIX4 PREFIX6      such as 10.201.0 and fd00:201::
set -uo pipefail
dir=$1 lb4=$2 lb6=$3
cd "$dir" || exit 1
fields='{.metadata.namespace} {.metadata.name} {.spec.ipFamilies[*]}|{.spec.loadBalancerIP}|{.status.loadBalancer.ingress[*].ip}{"\n"}'

free() { # free PREFIX: the lowest address that nobody has
    local i
    for i in $(seq 10 250); do
        case " $used " in *" $1$i "*) ;; *) echo "$1$i" && return ;; esac
    done
}

take() { # take FAMILIES WANTED: what the Service gets, nothing if it can't have what it asks for
    local family address list=()
    if [ -n "$2" ]; then
        case $2 in "$lb4".* | "$lb6"*) ;; *) return ;; esac
        case " $used " in *" $2 "*) return ;; esac
        echo "$2"
        return
    fi
    for family in $1; do
        case $family in
        IPv4) address=$(free "$lb4.") ;;
        *) address=$(free "$lb6") ;;
        esac
        [ -z "$address" ] || list+=("$address")
    done
    echo "${list[*]}"
}

while sleep 1; do
    used=$(./k get services -A -o jsonpath='{range .items[*]}{.status.loadBalancer.ingress[*].ip}{" "}{end}' 2>/dev/null) || continue
    used=$(echo "$used" | tr '\n' ' ')
    ./k get services -A -o jsonpath="{range .items[?(@.spec.type==\"LoadBalancer\")]}$fields{end}" 2>/dev/null >lb.list || continue
    while IFS='|' read -r who wanted have; do
        [ -z "$have" ] || continue
        read -r namespace service families <<<"$who"
        given=$(take "$families" "$wanted")
        [ -n "$given" ] || continue
        used="$used $given"
        ingress=$(for address in $given; do printf '{"ip":"%s"},' "$address"; done)
        ./k -n "$namespace" patch service "$service" --subresource=status --type=merge \
            -p "{\"status\":{\"loadBalancer\":{\"ingress\":[${ingress%,}]}}}"
    done <lb.list
done
