#!/usr/bin/env bash
# Writes what each program is made of, from Cargo.lock: one SBOM (CycloneDX, JSON) for each program.
# Usage: sbom.sh OUT TARGET     TARGET: whose dependencies, such as x86_64-unknown-linux-gnu
set -euo pipefail
out=${1:?usage: sbom.sh OUT TARGET} target=${2:?usage: sbom.sh OUT TARGET}
programs=(weft weft-agent weft-ca weft-cni weft-controller weft-node-proxy)
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
# The tool writes beside each package's manifest, where nothing of it is to stay.
trap 'find "$root" -path "$root/target" -prune -o -name "*_bin_$target.cdx.json" -exec rm -f {} +' EXIT
cd "$root"
# The variable has the last word.
CARGO_BUILD_TARGET=$target cargo cyclonedx --quiet --format json --describe binaries --target "$target" --target-in-filename
for program in "${programs[@]}"; do
    found=$(find . -path ./target -prune -o -name "${program}_bin_$target.cdx.json" -print)
    [ -n "$found" ] || { echo "no SBOM was made for $program" >&2; exit 1; }
    mv "$found" "$out/$program-${target%%-*}.cdx.json"
done
# A list that lacks what a program is known to have tells nobody anything.
python3 - "$out" "${target%%-*}" "${programs[@]}" <<'PYTHON'
import json
import pathlib
import sys

out, machine, programs = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
for program in programs:
    sbom = json.loads((out / f"{program}-{machine}.cdx.json").read_text())
    components = {part["name"]: part for part in sbom["components"]}
    assert sbom["bomFormat"] == "CycloneDX", program
    assert sbom["metadata"]["component"]["name"] == program, sbom["metadata"]["component"]["name"]
    for name in ("serde", "weft-core"):
        assert name in components, f"{program} without {name}"
    assert "rustls" in components or program == "weft-cni", f"{program} without rustls"
    tests = {"insta", "weft-testkit", "weft-kube-fake"} & components.keys()
    assert not tests, f"{program} with {tests}, which are of tests"
    bare = [part["name"] for part in sbom["components"] if not part.get("licenses") and not part["name"].startswith("weft")]
    assert not bare, f"{program}: no licence of {bare}"
    print(f"{program}-{machine}.cdx.json  {len(components)} components")
PYTHON
