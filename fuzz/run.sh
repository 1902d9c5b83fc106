#!/usr/bin/env bash
# Builds the fuzz targets, runs each for SECONDS in one process, or until its first finding, and prints a table.
# Usage: fuzz/run.sh SECONDS [TARGET...]. CHECKPOINTS names a folder of other programs' checkpoints, more seeds of `import`.
set -euo pipefail
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
CHECKPOINTS=${CHECKPOINTS:+$(realpath "$CHECKPOINTS")}
cd "$(dirname "$0")"
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
programs=${CARGO_TARGET_DIR:-target}/$host/release

# The flags that cargo-fuzz passes. With --target, build scripts and macros are compiled without them.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Cllvm-args=-sanitizer-coverage-stack-depth --cfg fuzzing -Clink-dead-code -Zsanitizer=address \
-Cdebug-assertions -Ccodegen-units=1" \
    cargo +nightly build --release --locked --target "$host" "${targets[@]/#/--bin=}"
python3 seeds.py ${CHECKPOINTS:+"$CHECKPOINTS"}

TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR RAYON_NUM_THREADS=1 ASAN_OPTIONS=detect_odr_violation=0:detect_leaks=0
mkdir -p logs
table="| target | executions | seconds | findings |"$'\n'"| --- | ---: | ---: | ---: |"
found=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "seeds/$target" "artifacts/$target"
    rm -f "artifacts/$target"/*
    begin=$SECONDS
    "$programs/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
        -detect_leaks=0 -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"logs/$target" 2>&1 || true
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "logs/$target" | tail -n 1)
    # A slow unit is reported, but is not a failure.
    findings=$(find "artifacts/$target" -type f ! -name 'slow-unit-*' | wc -l)
    found=$((found + findings))
    # A program that does not start leaves no finding.
    [ -n "$executions" ] || found=$((found + 1))
    table+=$'\n'"| \`$target\` | ${executions:-none, see logs/$target} | $((SECONDS - begin)) | $findings |"
    echo "$target: ${executions:-no} executions, $findings findings" >&2
done
printf '%s\n' "$table"
[ "$found" -eq 0 ]
