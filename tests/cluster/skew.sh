#!/usr/bin/env bash
# Versions side by side: builds an older one and runs tests/tests/cluster/skew.rs with both on a fresh cluster, which is taken
# down again; what a failure needs is collected first. Usage: skew.sh IMAGES_DIR GIT_REF     IMAGES_DIR: the images of now
set -euo pipefail
images=$(realpath "${1:?usage: skew.sh IMAGES_DIR GIT_REF}") ref=${2:?usage: skew.sh IMAGES_DIR GIT_REF}
here=$(cd "$(dirname "$0")" && pwd)
target=$(realpath "${CARGO_TARGET_DIR:-target}")
# A build folder of its own: packages of two versions have one name in it, and Cargo would take the one's for the other's.
older=$target/older
name=skew$$
export CLUSTER_DIR=/tmp/weft-cluster-$name WEFT_CLUSTER=/tmp/weft-cluster-$name
logs=${WEFT_CACHE:-$HOME/.cache/weft}/cluster-logs

ended() {
    if [ "$1" != 0 ] && [ -e "$CLUSTER_DIR" ]; then
        echo "FAILED: logs in $logs" >&2
        rm -rf "$logs"
        "$here/logs.sh" "$name" "$logs" || true
    fi
    "$here/down.sh" "$name"
    rm -rf "$older/source" "$older/images"
}
trap 'ended $?' EXIT
step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

step "images of $(git -C "$here" describe --always --tags "$ref")"
rm -rf "$older/source" "$older/images"
mkdir -p "$older/source"
# Cargo goes by the times of files, which would be those of the commit.
git -C "$here/../.." archive "$ref" | tar -x -m -C "$older/source"
CARGO_TARGET_DIR=$older/target make --no-print-directory -C "$older/source" images PROFILE=dev OUT="$older/images" TAG=older
step "cluster"
"$here/up.sh" "$name"
"$here/load.sh" "$name" "$older/images"
"$here/install.sh" "$name" "$images"
step "both, side by side"
WEFT_OLDER_CHART=$older/source/charts/weft WEFT_OLDER_TAG=older cargo test --workspace --quiet --test cluster -- --ignored --nocapture skew::
step "done"
