#!/usr/bin/env bash
# Line and branch coverage of the driver (src/) by all tests, and the lines that no test reaches, each with
# the reason that `coverage-explained.txt` has for it. A line without a reason fails.
#
# It needs cargo-llvm-cov (`cargo install cargo-llvm-cov --locked`) and the LLVM tools of a nightly
# toolchain, which alone counts branches (`rustup +nightly component add llvm-tools`); without a nightly
# it counts lines. It takes about seven minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain=()
branches=()
if [ -x "$(rustc +nightly --print target-libdir 2>/dev/null)/../bin/llvm-cov" ]; then
    toolchain=(+nightly)
    branches=(--branch)
fi
export CARGO_TARGET_DIR=target/coverage
mkdir -p "$CARGO_TARGET_DIR"
report=$CARGO_TARGET_DIR/report.txt
cargo "${toolchain[@]}" llvm-cov --workspace "${branches[@]}" \
    --ignore-filename-regex '(vfio-sim|vfio-vmm|examples|tests)/' --show-missing-lines "$@" >"$report"
sed '/^Uncovered Lines:/,$d' "$report"

# `FILE: 1, 4-6` for each line that is not covered, as `FILE:1`.
uncovered() {
    sed -n '/^Uncovered Lines:/,$s|^.*/src/\(.*\): \(.*\)|\1 \2|p' "$report" |
        while read -r file lines; do
            for part in ${lines//,/ }; do seq -f "src/$file:%g" "${part%-*}" "${part#*-}"; done
        done
}

unexplained=0
while IFS=: read -r file line; do
    text=$(sed -n "${line}s/^ *//p" "$file")
    reason=$(awk -F ' \\| ' -v file="$file" -v text="$text" \
        '$1 == file && index(text, $2) { print $3; exit }' tests/coverage-explained.txt)
    [ -n "$reason" ] || unexplained=$((unexplained + 1))
    printf '%s:%s: %s\n    %s\n' "$file" "$line" "$text" "${reason:-NOT EXPLAINED}"
done < <(uncovered)
echo "$unexplained uncovered lines are not explained"
[ "$unexplained" -eq 0 ]
