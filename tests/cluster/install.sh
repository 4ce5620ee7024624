#!/usr/bin/env bash
# Installs Weft on a test cluster as a person would. Usage: install.sh NAME IMAGES_DIR [HELM ARGUMENTS...]
# The images have the chart's own version as their tag.
set -euo pipefail
name=${1:?usage: install.sh NAME IMAGES_DIR} images=${2:?usage: install.sh NAME IMAGES_DIR}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
"$here/load.sh" "$name" "$images"
"$here/crds.sh" "$name" experimental
"$dir/in-cp" helm install weft "$here/../../charts/weft" -n weft-system --create-namespace --wait --timeout 3m "$@" >/dev/null
"$dir/k" -n weft-system get pods -o wide
