#!/usr/bin/env bash
# Builds Kubernetes, etcd, CoreDNS, Helm, the Gateway API conformance suite and its images from their Go modules.
# Usage: build.sh OUT_DIR      What is there already is left alone. About 14 minutes on 2 cores from nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cluster/versions.env
. "$here/versions.env"
out=$(mkdir -p "$1" && cd "$1" && pwd)
bin=$out/bin img=$out/images
# What is built belongs to these versions: others start anew.
if ! cmp -s "$here/versions.env" "$out/versions.env"; then
    if [ -e "$out/versions.env" ]; then rm -rf "$bin" "$img" "$out/crds" "$out/bundles"; fi
    mkdir -p "$out" && cp "$here/versions.env" "$out/versions.env"
fi
mkdir -p "$bin" "$img" "$out/mod"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
strip='-s -w'

module() { # module NAME: a module of our own that pulls in what is built
    mkdir -p "$out/mod/$1"
    cd "$out/mod/$1"
    [ -f go.mod ] || printf 'module build/%s\n\ngo 1.26\n' "$1" >go.mod
}

tool() { # tool NAME PACKAGE@VERSION [LDFLAGS]
    [ -x "$bin/$1" ] && return
    echo "building $1"
    module "$1"
    go get -tool "$2"
    go build -trimpath -ldflags "$strip ${3:-}" -o "$bin/$1" "${2%@*}"
}

kubernetes() {
    [ -x "$bin/kubelet" ] && return
    echo "building Kubernetes $KUBERNETES"
    module kubernetes
    local minor=${KUBERNETES#1.} mods commands command
    # The module replaces its staging modules by folders that aren't published: name the published ones.
    mods=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
    {
        printf 'module build/kubernetes\n\ngo 1.26\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$KUBERNETES"
        sed -n 's#^\t\(k8s.io/[a-z-]*\) => ./staging.*#\t\1 => \1 v0.'"$minor"'#p' "$mods"
        echo ')'
    } >go.mod
    commands=()
    for command in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        commands+=("k8s.io/kubernetes/cmd/$command")
    done
    go get -tool "${commands[@]/%/@v$KUBERNETES}"
    local version=k8s.io/component-base/version
    go build -trimpath -o "$bin/" -ldflags "$strip -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}" "${commands[@]}"
}

conformance() {
    [ -x "$bin/conformance.test" ] && return
    echo "building the conformance suite $GATEWAY_API"
    module conformance
    printf 'module build/conformance\n\ngo 1.26.0\n\nrequire (\n\tsigs.k8s.io/gateway-api v%s\n\tsigs.k8s.io/gateway-api/conformance v%s\n)\n' "$GATEWAY_API" "$GATEWAY_API" >go.mod
    printf 'package conformance_test\n\nimport (\n\t"testing"\n\n\t"sigs.k8s.io/gateway-api/conformance"\n)\n\nfunc TestConformance(t *testing.T) { conformance.RunConformance(t) }\n' >conformance_test.go
    go mod tidy
    go get -tool "sigs.k8s.io/gateway-api/conformance/echo-basic@v$GATEWAY_API"
    go build -trimpath -ldflags "$strip" -o "$bin/echo-basic" sigs.k8s.io/gateway-api/conformance/echo-basic
    rm -rf "$out/crds"
    cp -r "$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd" "$out/crds"
    chmod -R u+w "$out/crds"
    go test -c -o "$bin/conformance.test" .
}

# What Istio's agent asks the authority with.
istio_client() {
    [ ! "$bin/istio-client" -nt "$here/istio/main.go" ] || return 0
    echo "building the certificate client of Istio's agent"
    module istio-client
    cp "$here/istio/main.go" .
    go get "istio.io/istio@$ISTIO_ECHO"
    go mod tidy
    CGO_ENABLED=0 go build -trimpath -ldflags "$strip" -o "$bin/istio-client" .
    rm -f "$img/istio-client.tar"
}

# CRDs and examples of every release that is supported, the suite's own among them: clusters have them all.
bundles() {
    local version dir
    for version in 1.2.1 1.3.0 1.4.1 1.5.1 "$GATEWAY_API"; do
        [ ! -d "$out/bundles/$version" ] || continue
        module bundles
        dir=$(go mod download -json "sigs.k8s.io/gateway-api@v$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
        rm -rf "$out/bundles/tmp"
        mkdir -p "$out/bundles/tmp"
        cp -r "$dir"/config/crd/{standard,experimental} "$dir/examples" "$out/bundles/tmp"
        chmod -R u+w "$out/bundles/tmp"
        mv "$out/bundles/tmp" "$out/bundles/$version"
    done
}

image() { # image FILE NAME:TAG ENTRYPOINT SOURCE:DESTINATION...
    [ -f "$img/$1.tar" ] && return
    python3 "$here/image.py" "$img/$1.tmp" "${@:2}"
    mv "$img/$1.tmp" "$img/$1.tar"
}

images() {
    [ -x "$bin/pause" ] || gcc -static -O2 -o "$bin/pause" "$here/pause.c"
    image pause localhost/pause:1 /pause "$bin/pause:/pause"
    if [ ! "$bin/load" -nt "$here/load/main.go" ] || [ ! "$bin/load" -nt "$here/load/serve.go" ]; then
        CGO_ENABLED=0 go build -trimpath -ldflags "$strip" -o "$bin/load" "$here"/load/*.go
        rm -f "$img/load.tar"
    fi
    image istio-client localhost/istio-client:1 /istio-client "$bin/istio-client:/istio-client"
    image load localhost/load:1 /load "$bin/load:/load"
    if [ ! "$bin/shop" -nt "$here/shop/main.go" ]; then
        CGO_ENABLED=0 go build -trimpath -ldflags "$strip" -o "$bin/shop" "$here/shop/main.go"
        rm -f "$img/shop.tar"
    fi
    image shop localhost/shop:1 /shop "$bin/shop:/shop"
    image coredns "localhost/coredns:v$COREDNS" /coredns "$bin/coredns:/coredns"
    local suite certs name file
    suite=$(cd "$out/mod/conformance" && go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api/conformance)
    certs=$(cd "$out/mod/echo-server" && go list -m -f '{{.Dir}}' istio.io/istio)/tests/testdata/certs
    # By the names that the suite's manifests have for them.
    grep -rhoE 'image: *[^ ]*/(echo-basic|echo-advanced|coredns):[^ ]+' "$suite" | sed 's/image: *//' | sort -u | while read -r name; do
        file=${name##*/} file=${file//:/-}
        case $name in
        */echo-basic:*) image "$file" "$name" /echo-basic "$bin/echo-basic:/echo-basic" ;;
        */coredns:*) image "$file" "$name" /coredns "$bin/coredns:/coredns" ;;
        */echo-advanced:*)
            # The other name is for our own tests.
            image "$file" "$name,localhost/echo:1" /usr/local/bin/server \
                "$bin/echo-server:/usr/local/bin/server" "$bin/echo-client:/usr/local/bin/client" \
                "$certs/cert.crt:/cert.crt" "$certs/cert.key:/cert.key"
            ;;
        esac
    done
}

kubernetes
tool etcd "go.etcd.io/etcd/server/v3@v$ETCD"
tool coredns "github.com/coredns/coredns@v$COREDNS"
# `helm template` and `helm lint` know a cluster's version by how they were built; without it they take it for 1.20.
kube=${KUBERNETES%.*} chartutil=helm.sh/helm/v3/pkg/chartutil
tool helm "helm.sh/helm/v3/cmd/helm@v$HELM" "-X $chartutil.k8sVersionMajor=${kube%.*} -X $chartutil.k8sVersionMinor=${kube#*.}"
tool echo-client "istio.io/istio/pkg/test/echo/cmd/client@$ISTIO_ECHO"
tool echo-server "istio.io/istio/pkg/test/echo/cmd/server@$ISTIO_ECHO"
istio_client
conformance
bundles
images
