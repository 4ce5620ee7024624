#!/usr/bin/env bash
# What release programs are made for: builds the benchmark so that it counts, has Weft serve each kind of its load, without peers, and
# writes the counts to OUT, for the compiler. Usage: profile.sh OUT
set -euo pipefail
out=${1:?usage: profile.sh OUT}
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT

machine=${CARGO_BUILD_TARGET%%-*}
flags=CARGO_TARGET_${machine^^}_UNKNOWN_LINUX_GNU_RUSTFLAGS
# Counters live in their file: the benchmark kills its proxies, which then write nothing. What is counted of values can't live there.
export "$flags=${!flags} -Cprofile-generate -Cllvm-args=-runtime-counter-relocation -Cllvm-args=-disable-vp"
export LLVM_PROFILE_FILE=$raw/%p%c.profraw
# As `make bench` does.
cargo bench --workspace --profile release --bench peers -- --peer weft --rounds 1 --seconds 5 \
    --only plain --only tls --only mesh --only observability
# Less what was never called: it is compiled as if nothing had been counted, not as if it never would be called.
llvm-profdata merge --sparse -o "$out" "$raw"
ls -l "$out"
