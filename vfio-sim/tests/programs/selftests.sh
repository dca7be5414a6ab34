#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Builds the kernel's own VFIO selftests from Debian's source package: `selftests.sh DIRECTORY`. The tests come into
# DIRECTORY/bin; a second call finds them and does nothing. Status 3: they cannot be had here. They are the kernel's,
# under its licence: nothing of it belongs into this repository.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -eq 1 ] || { echo "usage: selftests.sh DIRECTORY" >&2; exit 2; }

kernel=7.3
package=linux-source-$kernel

# Debian's backports have a kernel for some months; then unstable has a newer one.
open_suite_with_source() {
    local suite
    for suite in trixie-backports sid experimental; do
        open_directory "$1" "$suite" "$package"
        version=$(version_of "$suite" "$package") || continue
        say "building the selftests of $package $version"
        unpack "$suite" "$package"
        return
    done
    lacking "no Debian suite has $package any more; put a newer one into selftests.sh"
}

# What the selftests include: the user headers, tools/include and the registers of the devices that they drive.
unpack_source() {
    local top=linux-source-$kernel
    tar -C "$directory" -xf "$directory/root/usr/src/$top.tar.xz" --wildcards "$top/Makefile" '*/Kbuild' \
        "$top/scripts" "$top/include" "$top/arch/*/include" "$top/arch/*/Makefile" "$top/arch/*/entry" "$top/tools" \
        "$top/drivers/dma/*.h" "$top/drivers/net/ethernet/intel/igb/*.h"
    rm -rf "$directory/root"
    mv "$directory/$top" "$directory/source"
}

build() {
    local jobs
    jobs=$(nproc)
    cd "$directory/source"
    make --silent -j "$jobs" headers
    make --silent -j "$jobs" -C tools/testing/selftests TARGETS=vfio KHDR_INCLUDES="-isystem $PWD/usr/include"
    mkdir -p ../built
    find tools/testing/selftests/vfio -maxdepth 1 -type f -executable -exec cp {} ../built \;
}

[ ! -d "$1/bin" ] || exit 0
need gcc gcc
need make make
need xz xz-utils
echo '#include <uuid/uuid.h>' | gcc -E - >/dev/null 2>&1 ||
    stop "uuid/uuid.h is not installed; install the Debian package uuid-dev"
rm -rf "$1/source" "$1/root" "$1/built"
open_suite_with_source "$1"
unpack_source
(build) >"$directory/log" 2>&1 || stop "the selftests do not build: see $directory/log"
rm -rf "$directory/source" "$directory/apt" "$directory/packages"
mv "$directory/built" "$directory/bin"
