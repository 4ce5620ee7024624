#!/usr/bin/env bash
# Puts images into every node of a test cluster. Usage: load.sh NAME IMAGES_DIR
set -euo pipefail
name=${1:?usage: load.sh NAME IMAGES_DIR} images=${2:?usage: load.sh NAME IMAGES_DIR}
dir=${CLUSTER_DIR:-/tmp/weft-cluster-$name}
for enter in "$dir"/in-node*; do
    for image in "$images"/*.tar; do "$enter" ctr -n k8s.io images import "$image" >/dev/null & done
    wait
done
