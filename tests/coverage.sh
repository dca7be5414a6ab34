#!/usr/bin/env bash
# Line and branch coverage of the driver (src/) by all tests, and the lines that no test reaches.
#
# It needs cargo-llvm-cov (`cargo install cargo-llvm-cov --locked`) and the LLVM tools of a nightly
# toolchain, which alone counts branches (`rustup +nightly component add llvm-tools`); without a nightly
# it counts lines.
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain=()
branches=()
if [ -x "$(rustc +nightly --print target-libdir 2>/dev/null)/../bin/llvm-cov" ]; then
    toolchain=(+nightly)
    branches=(--branch)
fi
export CARGO_TARGET_DIR=target/coverage
cargo "${toolchain[@]}" llvm-cov --workspace "${branches[@]}" \
    --ignore-filename-regex '(vfio-sim|vfio-vmm|examples|tests)/' --show-missing-lines "$@"
