#!/usr/bin/env bash
# Runs the stress of tests/no_access_outlives_unmap.rs under ThreadSanitizer.
#
# It needs a nightly toolchain with the source of std: ThreadSanitizer takes the locks of a std that
# is not built for it for races. Where that is missing, nothing is run.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! sysroot=$(rustc +nightly --print sysroot 2>/dev/null); then
    echo "no ThreadSanitizer: there is no nightly toolchain; rustup toolchain install nightly"
    exit 0
fi
if [ ! -d "$sysroot/lib/rustlib/src" ]; then
    echo "no ThreadSanitizer: std's source is missing; rustup +nightly component add rust-src"
    exit 0
fi
target=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=thread"
exec cargo +nightly test -p vfio-type1 -Zbuild-std --target "$target" --target-dir target/tsan \
    --test no_access_outlives_unmap
