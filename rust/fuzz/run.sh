#!/bin/sh
# Runs each fuzz target, or those named, for some seconds: run.sh SECONDS [TARGET ...]
# Needs a stable Rust toolchain and a C++ compiler, nothing else: the flags are those of
# cargo-fuzz without a sanitizer, which alone would need a nightly toolchain.
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
[ $# -gt 0 ] || set -- $(ls fuzz_targets | sed 's/\.rs$//')
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing" \
    cargo build --release --target "$host"
for target in "$@"; do
    echo "== $target"
    mkdir -p "target/corpus/$target" artifacts
    "target/$host/release/$target" -max_total_time="$seconds" -max_len=6000 -rss_limit_mb=512 \
        -timeout=5 -artifact_prefix="artifacts/$target-" -verbosity=0 -print_final_stats=1 \
        "target/corpus/$target" "corpus/$target"
done
