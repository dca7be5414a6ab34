#!/usr/bin/env bash
# Line and branch coverage of the driver (src/) by all tests, and the lines that no test reaches, each with
# the reason that `coverage-explained.txt` has for it. A line without a reason fails.
#
# It needs cargo-llvm-cov (`cargo install cargo-llvm-cov --locked`) and the LLVM tools of a nightly
# toolchain, which alone counts branches (`rustup +nightly component add llvm-tools`); without a nightly
# it counts lines. It takes about seven minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain=(cargo)
branches=()
if [ -x "$(rustc +nightly --print target-libdir 2>/dev/null)/../bin/llvm-cov" ]; then
    toolchain=(cargo +nightly)
    branches=(--branch)
fi
export CARGO_TARGET_DIR=target/coverage
mkdir -p "$CARGO_TARGET_DIR"
report=$CARGO_TARGET_DIR/report.txt
lines=$CARGO_TARGET_DIR/uncovered.txt
"${toolchain[@]}" llvm-cov --workspace ${branches[@]+"${branches[@]}"} \
    --ignore-filename-regex "^$PWD/(vfio-sim|vfio-vmm|examples|tests)/" --show-missing-lines "$@" >"$report"
sed '/^Uncovered Lines:/,$d' "$report"
grep -q '^map.rs ' "$report" || { echo "the report says nothing about src/map.rs" >&2; exit 1; }

# `FILE: 1, 4-6` for each line that is not covered, as `FILE:1`.
sed -n '/^Uncovered Lines:/,$s|^.*/src/\(.*\): \(.*\)|\1 \2|p' "$report" | while read -r file parts; do
    for part in ${parts//,/ }; do seq -f "src/$file:%g" "${part%-*}" "${part#*-}"; done
done >"$lines"

unexplained=0
used=$CARGO_TARGET_DIR/used.txt
: >"$used"
while IFS=: read -r file line; do
    text=$(sed -n "${line}s/^ *//p" "$file")
    entry=$(awk -F ' \\| ' -v file="$file" -v text="$text" \
        '$1 == file && index(text, $2) { print; exit }' tests/coverage-explained.txt)
    [ -n "$entry" ] || unexplained=$((unexplained + 1))
    echo "$entry" >>"$used"
    reason=${entry##* | }
    printf '%s:%s: %s\n    %s\n' "$file" "$line" "$text" "${reason:-NOT EXPLAINED}"
done <"$lines"
stale=$(grep -v '^#' tests/coverage-explained.txt | grep -vxFf "$used" || true)
[ -z "$stale" ] || printf 'explained, but covered:\n%s\n' "$stale"
echo "$unexplained uncovered lines are not explained"
[ "$unexplained" -eq 0 ]
