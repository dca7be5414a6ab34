#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Unpacks qemu-img and qemu-io of Debian 13 or another suite: `qemu.sh DIRECTORY [SUITE]`. DIRECTORY/bin has what
# starts them; they bring all libraries, libc too, and the machine's own stay as they are. A second call finds them
# and does nothing. Status 3: they cannot be had here.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -eq 1 ] || [ $# -eq 2 ] || { echo "usage: qemu.sh DIRECTORY [SUITE]" >&2; exit 2; }
suite=${2:-trixie}

[ ! -d "$1/bin" ] || exit 0
open_directory "$1" "$suite" qemu-utils
version=$(version_of "$suite" qemu-utils) || lacking "suite $suite has no qemu-utils"
say "unpacking qemu-utils $version"
unpack_closure "$suite" qemu-utils
write_starter qemu-img
write_starter qemu-io
rm -rf "$directory/apt" "$directory/packages"
