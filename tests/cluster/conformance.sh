#!/usr/bin/env bash
# Runs the mesh tests of the official Gateway API conformance suite: both mesh profiles with every mesh feature, and the
# tests that no report counts. The exit code is the suite's.
# Usage: conformance.sh NAME [REPORT] [FLAGS OF THE SUITE...]
set -euo pipefail
name=${1:?usage: conformance.sh NAME [REPORT] [FLAGS...]} report=${2:-}
shift $(($# > 1 ? 2 : 1))
here=$(cd "$(dirname "$0")" && pwd)
build=${CLUSTER_BUILD:-${WEFT_CACHE:-$HOME/.cache/weft}/cluster}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$here/../../charts/weft/Chart.yaml")
features=Mesh,MeshClusterIPMatching,MeshConsumerRoute,MeshHTTPRouteRewritePath,MeshHTTPRouteSchemeRedirect,MeshHTTPRouteRedirectPort
features+=,MeshHTTPRouteRedirectPath,MeshHTTPRouteBackendRequestHeaderModification,MeshHTTPRouteQueryParamMatching,MeshHTTPRouteNamedRouteRule
features+=,HTTPRoute,HTTPRoute303RedirectStatusCode,HTTPRoute307RedirectStatusCode,HTTPRoute308RedirectStatusCode,HTTPRouteParentRefPort
features+=,HTTPRouteResponseHeaderModification,GRPCRoute

# The suite waits for pods in two namespaces that only its gateway tests make.
"$dir/k" apply -f "$here/conformance-namespaces.yaml" >/dev/null
# shellcheck disable=SC2054
arguments=(-gateway-class=weft -conformance-profiles=MESH-HTTP,MESH-GRPC "-supported-features=$features"
    -namespace-labels=weftmesh.io/mesh=enabled)
if [ -n "$report" ]; then
    arguments+=("-report-output=$report" -organization=weftmesh -project=weft -url=https://github.com/weftmesh/weft
        "-version=v$version" -contact=https://github.com/weftmesh/weft/issues)
fi
exec "$dir/in-cp" "$build/bin/conformance.test" -test.run TestConformance -test.v -test.timeout 15m "${arguments[@]}" "$@"
