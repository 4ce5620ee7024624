#!/usr/bin/env bash
# Puts a release together: programs and images for both architectures, charts, SBOMs, checksums. `make release` calls it
# when all that it takes was built. Usage: release.sh OUT VERSION TARGET_DIR
set -euo pipefail
out=${1:?usage: release.sh OUT VERSION TARGET_DIR} version=${2:?usage: release.sh OUT VERSION TARGET_DIR} built=${3:?usage: release.sh OUT VERSION TARGET_DIR}
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
workspace=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ "$workspace" = "$version" ] || { echo "Cargo.toml says $workspace, the chart $version" >&2; exit 1; }
grep -q "^## $version\b" CHANGELOG.md || { echo "CHANGELOG.md has no section $version" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || { echo "the tree has changes that aren't committed" >&2; exit 1; }

for machine in x86_64 aarch64; do
    arch=${machine/x86_64/amd64}
    arch=${arch/aarch64/arm64}
    # The same time and owner for everything: the same programs give the same archive.
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory="$built/$machine-unknown-linux-gnu/release" \
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
