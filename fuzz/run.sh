#!/usr/bin/env bash
# Runs fuzz targets one after another. Usage: run.sh PROGRAM FOUND SECONDS [TARGET...]
# What is new stays in FOUND/TARGET, and is where the next run begins; what fails is in FOUND/failed, and belongs into corpus/TARGET.
set -euo pipefail
program=$1 found=$2 seconds=$3
shift 3
corpus=$(cd "$(dirname "$0")" && pwd)/corpus
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -a "$corpus"/*)
mkdir -p "$found/failed"
failed=()
for target in "${targets[@]}"; do
    mkdir -p "$found/$target"
    log=$found/$target.log
    if WEFT_FUZZ=$target "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
        -artifact_prefix="$found/failed/$target-" "$found/$target" "$corpus/$target" >"$log" 2>&1; then
        seeds=$(find "$corpus/$target" -type f | wc -l)
        echo "$target: $(grep -oE 'Done [0-9]+ runs in [0-9]+ second' "$log")s, $(find "$found/$target" -type f | wc -l) inputs beside $seeds seeds"
    else
        failed+=("$target")
        echo "$target FAILED: see $log" >&2
        tail -30 "$log" >&2
    fi
done
[ ${#failed[@]} -eq 0 ]
