#!/usr/bin/env bash
# Makes NAME.png of each NAME.html that render.py wrote: photograph.sh HTML-DIR OUT-DIR
set -euo pipefail
html=$1 out=$2
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
options=(--headless --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking "--user-data-dir=$profile")
# Chromium's own sandbox doesn't start as root; it sees nothing but these files.
[ "$(id -u)" != 0 ] || options+=(--no-sandbox)
for page in "$html"/*.html; do
    name=$(basename "$page" .html)
    # As high as the page: the header, and the grid, whose height its element has.
    height=$(sed -n 's/.*<main style="height:\([0-9]*\)px".*/\1/p' "$page")
    chromium "${options[@]}" "--window-size=1440,$((height + 76))" "--screenshot=$out/$name.png" "file://$(realpath "$page")" 2>"$profile/said" ||
        { cat "$profile/said" >&2; exit 1; }
done
