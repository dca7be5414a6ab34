#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Unpacks DPDK's test program with its driver for I/OAT, of Debian 13 or another suite: `dpdk.sh DIRECTORY [SUITE]`.
# DIRECTORY/bin/dpdk-test starts it; it brings all libraries, libc too, and the machine's own stay as they are. A
# second call finds it and does nothing. Status 3: it cannot be had here.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -eq 1 ] || [ $# -eq 2 ] || { echo "usage: dpdk.sh DIRECTORY [SUITE]" >&2; exit 2; }
suite=${2:-trixie}

[ ! -d "$1/bin" ] || exit 0
open_directory "$1" "$suite" dpdk-dev
version=$(version_of "$suite" dpdk-dev) || lacking "suite $suite has no dpdk-dev"
say "unpacking dpdk-dev $version"
# The libraries alone: the package also wants compilers' headers and Python.
mapfile -t libraries < <(depends "$suite" dpdk-dev | grep -v -E '^(libdpdk-dev|python3)$')
# Libraries and drivers carry the number of DPDK's ABI: librte-dmadev25.
abi=$(printf '%s\n' "${libraries[@]}" | sed -n 's/^librte-dmadev//p')
unpack_closure "$suite" "${libraries[@]}" "librte-dma-ioat$abi" "librte-mempool-ring$abi"
unpack "$suite" dpdk-dev
# By name, found among the libraries: DPDK takes no drivers by path from below /tmp.
write_starter dpdk-test -d "librte_dma_ioat.so.$abi" -d "librte_mempool_ring.so.$abi"
rm -rf "$directory/apt" "$directory/packages"
