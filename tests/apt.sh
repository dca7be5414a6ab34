# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Packages of any Debian suite, while the machine's own apt stays as it is. Scripts source this.

# Runs a command of apt for one suite, with lists and state of our own. The mirrors are those of the machine.
private_apt() {
    local state=$1 suite=$2 architecture=$3
    shift 3
    "$@" -o Dir::Etc::sourcelist="$state/$suite.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root
}

# Reads the lists of a suite. Fails where the machine's apt has no Debian mirror, or the mirror not the suite; what
# apt says of it is in STATE/log.
update_suite() {
    local state=$1 suite=$2 architecture=$3
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    touch "$state/status"
    write_sources "$state/$suite.list" "$suite" &&
        private_apt "$state" "$suite" "$architecture" apt-get -qq update 2>"$state/log"
}

write_sources() {
    local list=$1 suite=$2 mirrors main security
    mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u)
    main=$(grep -m1 '/debian/$' <<<"$mirrors") || return 1
    echo "deb $main $suite main" >"$list"
    security=$(grep -m1 '/debian-security/$' <<<"$mirrors") || return 0
    case $suite in
        sid | experimental | *-backports) ;;
        *) echo "deb $security $suite-security main" >>"$list" ;;
    esac
}
