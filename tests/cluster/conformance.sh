#!/usr/bin/env bash
# Runs the official Gateway API conformance suite. The exit code is the suite's.
#   mesh  both mesh profiles with every mesh feature, and the tests that no report counts
#   all   all seven profiles with all features
# Usage: conformance.sh NAME mesh|all [REPORT] [FLAGS OF THE SUITE...]
set -euo pipefail
name=${1:?usage: conformance.sh NAME mesh|all [REPORT] [FLAGS...]} which=${2:?usage: conformance.sh NAME mesh|all [REPORT] [FLAGS...]}
report=${3:-}
shift $(($# > 2 ? 3 : 2))
here=$(cd "$(dirname "$0")" && pwd)
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$here/../../charts/weft/Chart.yaml")
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"

arguments=(-gateway-class=weft -namespace-labels=weftmesh.io/mesh=enabled)
case $which in
mesh)
    features=Mesh,MeshClusterIPMatching,MeshConsumerRoute,MeshHTTPRouteRewritePath,MeshHTTPRouteSchemeRedirect,MeshHTTPRouteRedirectPort
    features+=,MeshHTTPRouteRedirectPath,MeshHTTPRouteBackendRequestHeaderModification,MeshHTTPRouteQueryParamMatching,MeshHTTPRouteNamedRouteRule
    features+=,HTTPRoute,HTTPRoute303RedirectStatusCode,HTTPRoute307RedirectStatusCode,HTTPRoute308RedirectStatusCode,HTTPRouteParentRefPort
    features+=,HTTPRouteResponseHeaderModification,GRPCRoute
    arguments+=("-conformance-profiles=MESH-HTTP,MESH-GRPC" "-supported-features=$features")
    # The suite waits for pods in two namespaces that only its gateway tests make.
    "$dir/k" apply -f "$here/conformance-namespaces.yaml" >/dev/null
    limit=15m
    ;;
all)
    arguments+=("-conformance-profiles=GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP,MESH-HTTP,MESH-GRPC" -all-features)
    # Retries are in the experimental channel alone.
    "$here/crds.sh" "$name" experimental
    # One that load balancers give, and one that nobody has.
    arguments+=("-usable-address=$lb4.249" -unusable-address=192.0.2.1)
    limit=120m
    ;;
*) echo "mesh or all?" >&2 && exit 2 ;;
esac
if [ -n "$report" ]; then
    arguments+=("-report-output=$report" -organization=weftmesh -project=weft -url=https://github.com/weftmesh/weft
        "-version=v$version" -contact=https://github.com/weftmesh/weft/issues)
fi
exec "$dir/in-cp" "$build/bin/conformance.test" -test.run TestConformance -test.v -test.timeout "$limit" "${arguments[@]}" "$@"
