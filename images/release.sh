#!/usr/bin/env bash
# What `make release` needs, looked at before it builds for an hour:
#     release.sh check VERSION [DRAFT]     With DRAFT changes and a version without a section in CHANGELOG.md are no mistakes.
# and then what was built, put together: programs and images for both architectures, charts, SBOMs, checksums:
#     release.sh pack OUT VERSION TARGET_DIR PROFILE_DIR
set -euo pipefail
cd "$(dirname "$0")/.."

check() { # check VERSION [DRAFT]
    local version=${1:?which version?} draft=${2:-} workspace
    workspace=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
    [ "$workspace" = "$version" ] || { echo "Cargo.toml says $workspace, the chart $version" >&2; exit 1; }
    [ -z "$draft" ] || return 0
    grep -q "^## $version\b" CHANGELOG.md || { echo "CHANGELOG.md has no section $version; DRAFT=1 does without" >&2; exit 1; }
    [ -z "$(git status --porcelain)" ] || { echo "the tree has changes that aren't committed; DRAFT=1 takes them" >&2; exit 1; }
}

pack() { # pack OUT VERSION TARGET_DIR PROFILE_DIR
    local out=${1:?where to?} version=${2:?which version?} built=${3:?which target folder?} profile=${4:?release or debug?}
    local machine arch chart files
    for machine in x86_64 aarch64; do
        arch=${machine/x86_64/amd64}
        arch=${arch/aarch64/arm64}
        # The same time and owner for everything: the same programs give the same archive.
        tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory="$built/$machine-unknown-linux-gnu/$profile" \
            weft weft-agent weft-ca weft-cni weft-controller weft-node-proxy | gzip -n >"$out/weft-$version-linux-$arch.tar.gz"
        images/sbom.sh "$out/sbom" "$machine-unknown-linux-gnu"
    done
    for chart in weft weft-crds; do
        helm package "charts/$chart" --destination "$out" >/dev/null
    done
    cp CHANGELOG.md LICENSE "$out"
    cd "$out"
    mapfile -t files < <(find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort)
    sha256sum "${files[@]}" | tee SHA256SUMS
}

command=${1:-}
case $command in
    check | pack)
        shift
        "$command" "$@"
        ;;
    *)
        echo "usage: release.sh check VERSION [DRAFT] | pack OUT VERSION TARGET_DIR PROFILE_DIR" >&2
        exit 2
        ;;
esac
