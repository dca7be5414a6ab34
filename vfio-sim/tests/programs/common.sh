# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Packages unpacked beside the machine's own, for the scripts that bring programs.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../../tests/apt.sh
. "$here/../../../tests/apt.sh"
architecture=$(dpkg --print-architecture 2>/dev/null) || architecture=

say() { echo "programs: $*" >&2; }
stop() { say "$*"; exit 2; }
lacking() { say "$*"; exit 3; }

need() { command -v "$1" >/dev/null || stop "$1 is not installed; install the Debian package $2"; }

# Makes DIRECTORY ready for packages of SUITE, and calls it `directory`, an absolute path.
open_directory() {
    local suite=$2
    [ -n "$architecture" ] || lacking "this machine has no dpkg, so no Debian packages to bring $3 from"
    mkdir -p "$1"
    directory=$(cd "$1" && pwd)
    state=$directory/apt
    update_suite "$state" "$suite" "$architecture" ||
        lacking "suite $suite, which has $3, cannot be had by this machine's apt: see $state/log"
}

# The newest version that SUITE has of a package; fails if it has none.
version_of() {
    private_apt "$state" "$1" "$architecture" apt-cache show --no-all-versions "$2" 2>/dev/null |
        sed -n 's/^Version: //p' | grep -m1 .
}

depends() {
    private_apt "$state" "$1" "$architecture" apt-cache show --no-all-versions "$2" |
        sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/ *(.*//; s/ |.*//; s/^ *//'
}

# Unpacks packages of SUITE into the directory's root, without what they need.
unpack() {
    local suite=$1
    shift
    mkdir -p "$directory/root" "$directory/packages"
    (cd "$directory/packages" && private_apt "$state" "$suite" "$architecture" apt-get -qq download "$@") ||
        lacking "$* cannot be fetched from suite $suite"
    unpack_all "$directory/packages"
}

# Unpacks packages of SUITE with all libraries that they need, down to libc.
unpack_closure() {
    local suite=$1
    shift
    private_apt "$state" "$suite" "$architecture" \
        apt-get -qq --yes --no-install-recommends --download-only install "$@" >/dev/null ||
        lacking "what the program needs cannot be fetched from suite $suite"
    mkdir -p "$directory/root"
    unpack_all "$state/cache/archives"
}

unpack_all() {
    local package
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$directory/root"
        rm "$package"
    done
}

# Writes DIRECTORY/bin/PROGRAM, which starts the unpacked program with its own libc. More arguments stand before the
# caller's.
write_starter() {
    local program=$1 loader
    shift
    loader=$(cd "$directory/root" && find . -name 'ld-linux*' -type f | head -n 1)
    mkdir -p "$directory/bin"
    cat >"$directory/bin/$program" <<END
#!/bin/sh
root=\$(cd "\$(dirname "\$0")/../root" && pwd) || exit 1
libraries=\$(echo "\$root"/lib/*-linux-gnu "\$root"/usr/lib/*-linux-gnu | tr ' ' :)
exec "\$root/$loader" --argv0 $program --library-path "\$libraries" "\$root/usr/bin/$program" $* "\$@"
END
    chmod +x "$directory/bin/$program"
}
