# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Kernels, guests and hosts, for `run` and `shrink`.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=../apt.sh
. "$root/tests/apt.sh"
target=${CARGO_TARGET_DIR:-$root/target}
cache=${KERNELS_CACHE:-$target/kernels}
accel=tcg
cpu=
regions=1

say() { echo "kernels: $*" >&2; }
stop() { say "$*"; exit 2; }
lacking() { say "$*"; exit 3; }

need() {
    command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
        stop "$1 is not installed; install the Debian package $2"
}

# The Debian suite that has a kernel.
suite_of() {
    case $1 in
        5.10) echo bullseye ;;
        6.1) echo bookworm ;;
        6.12) echo trixie ;;
        7.2) echo sid ;;
        *) return 1 ;;
    esac
}

# Debian's name of the architecture that a host needs.
arch_of() {
    case $1 in
        smmu | viommu) echo arm64 ;;
        *) echo amd64 ;;
    esac
}

# Downloads a package into the current directory; the newest of the suite unless a version is given.
download() {
    private_apt "$state" "$suite" "$architecture" apt-get -qq download "$@"
}

depends() {
    private_apt "$state" "$suite" "$architecture" apt-cache show --no-all-versions "$1" |
        sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/ *(.*//; s/^ *//'
}

# Puts kernel, modules and busybox of VERSION for ARCHITECTURE into the cache. Ends the script with status 3
# where they cannot be had.
prepare_kernel() {
    local version=$1 architecture=$2 suite state directory package
    directory=$cache/$version-$architecture
    [ ! -e "$directory/release" ] || return 0
    suite=$(suite_of "$version") || lacking "no Debian suite is known to have kernel $version"
    state=$cache/apt/$architecture
    rm -rf "$directory"
    mkdir -p "$directory/package"
    update_suite "$state" "$suite" "$architecture" ||
        lacking "suite $suite, which has kernel $version, cannot be had by this machine's apt: see $state/log"
    package=$(depends "linux-image-$architecture" | grep -m1 "^linux-image-$version[.0-9]*") ||
        lacking "suite $suite has no kernel $version any more"
    say "fetching $package"
    (
        trap '[ $? -eq 0 ] || lacking "kernel $version for $architecture cannot be fetched or unpacked"' EXIT
        cd "$directory"
        # Kernels of 2026 come in several packages.
        # shellcheck disable=SC2046
        download "$package" busybox-static $(depends "$package" | grep -E '^linux-(base|binary|modules)-')
        for file in *.deb; do dpkg-deb -x "$file" package; done
        unpack_kernel "$architecture"
        rm -rf ./*.deb package
    )
}

# From package/: kernel, busybox, modules in the order in which they load.
unpack_kernel() {
    local architecture=$1 modules release module file number=10
    cp "$(find package -name busybox -path '*bin/*')" busybox
    cp "$(find package -name 'vmlinuz*' -type f)" vmlinuz
    modules=$(dirname "$(find package -name modules.order)")
    release=$(basename "$modules")
    # depmod looks where old packages have their modules.
    [ -e package/lib/modules ] || { mkdir -p package/lib; ln -s ../usr/lib/modules package/lib/modules; }
    PATH=$PATH:/usr/sbin:/sbin
    depmod -b package "$release"
    mkdir -p modules
    # shellcheck disable=SC2046
    for module in $(wanted_modules "$architecture"); do
        modprobe -d package -S "$release" --show-depends --ignore-install "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >load
    while read -r file; do
        module=$number-$(basename "$file" .xz)
        case $file in
            *.xz) xz -dc "$file" >"modules/$module" ;;
            *) cp "$file" "modules/$module" ;;
        esac
        echo "$module $(parameters "$module")" >>modules/list
        number=$((number + 1))
    done <load
    echo "$release" >release
}

# VFIO, and the disk that a guest writes to.
wanted_modules() {
    case $1 in
        amd64) echo ahci sd_mod vfio-pci ;;
        arm64) echo virtio_mmio virtio_blk virtio_pci virtio_iommu vfio-pci ;;
    esac
}

parameters() {
    case $1 in
        *vfio_iommu_type1.ko) echo '$type1_parameters' ;;
    esac
}

rust_target() {
    case $1 in
        amd64) echo x86_64-unknown-linux-musl ;;
        arm64) echo aarch64-unknown-linux-musl ;;
    esac
}

# The tool for guests of ARCHITECTURE, without anything that it would have to load.
build_tool() {
    local triple
    triple=$(rust_target "$1")
    rustup target add "$triple" >/dev/null 2>&1 || say "cannot add the Rust target $triple; trying without"
    # rust-lld comes with Rust and links for every architecture.
    CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        cargo build --quiet --manifest-path "$root/Cargo.toml" --target-dir "$target" \
        --release --target "$triple" -p vfio-sim --bin vfio-sim ||
        stop "the tool cannot be built for $triple"
}

archive() { (cd "$1" && find . | cpio --quiet -o -H newc); }

# An initramfs of tables to override, tool and modules, and the job.
pack_guest() {
    local host=$1 version=$2 architecture=$3 work=$4 directory guest
    directory=$cache/$version-$architecture guest=$work/guest
    mkdir -p "$guest"/{bin,dev,proc,sys} "$work/tables/kernel/firmware/acpi"
    cp -r "$directory/modules" "$work/job" "$guest"
    cp "$directory/busybox" "$target/$(rust_target "$architecture")/release/vfio-sim" "$guest/bin"
    cp "$here/init" "$guest/init"
    sed -i "s/[$]type1_parameters/$(type1_parameters "$host")/" "$guest/modules/list"
    if [ -e "$here/acpi/$host.dsl" ]; then
        iasl -p "$work/tables/kernel/firmware/acpi/$host" "$here/acpi/$host.dsl" >"$work/iasl.log" ||
            stop "$here/acpi/$host.dsl: iasl refuses it: $(cat "$work/iasl.log")"
        archive "$work/tables" >"$work/initrd"
    fi
    archive "$guest" >>"$work/initrd"
}

type1_parameters() { [ "$1" != viommu ] || echo allow_unsafe_interrupts=1; }

# The devices that a host gives to VFIO.
devices_of() {
    case $1 in
        vtd48) echo 0000:00:03.0 0000:00:04.0 0000:01:01.0 0000:01:02.0 ;;
        igd) echo 0000:00:02.0 0000:00:03.0 0000:00:04.0 0000:00:1a.0 0000:00:1d.0 ;;
        *) echo 0000:00:03.0 0000:00:04.0 ;;
    esac
}

# What QEMU makes of a host, an argument a line.
machine_of() {
    local nic=e1000e
    case $1 in
        vtd48 | vtd39 | igd | amd | amd-*) printf '%s\n' -machine q35,kernel-irqchip=split ;;
        smmu) printf '%s\n' -machine virt,gic-version=3,iommu=smmuv3 ;;
        viommu) printf '%s\n' -machine virt,gic-version=3,its=off ;;
    esac
    case $1 in
        vtd48) printf '%s\n' -device intel-iommu,intremap=on,aw-bits=48 \
            -device pcie-pci-bridge,addr=5,id=bridge \
            -device $nic,bus=bridge,addr=1 -device $nic,bus=bridge,addr=2 ;;
        vtd39) printf '%s\n' -device intel-iommu,intremap=on,aw-bits=39 ;;
        igd) printf '%s\n' -device intel-iommu,intremap=on,aw-bits=48 -device VGA,addr=2 \
            -device ich9-usb-ehci1,addr=1a.0 -device ich9-usb-ehci1,addr=1d.0 ;;
        amd | amd-*) printf '%s\n' -device amd-iommu,intremap=on ;;
        smmu) printf '%s\n' -device pcie-root-port,addr=8,id=root ;;
        viommu) viommu_device ;;
    esac
    printf '%s\n' -device $nic,addr=3 -device $nic,addr=4
}

# virtio-iommu with one to twelve regions, the same for the same --regions.
viommu_device() {
    local count index first last type list=
    RANDOM=$regions
    count=$((1 + RANDOM % 12))
    for ((index = 0; index < count; index++)); do
        first=$(random_address)
        last=$(random_end "$first")
        type=$((RANDOM % 2))
        list+=",reserved-regions[$index]=$first:$last:$type"
    done
    printf '%s\n' -device "virtio-iommu-pci,addr=1,len-reserved-regions=$count$list"
}

# Often at a page or just beside one.
random_address() {
    local bits=$((RANDOM << 49 ^ RANDOM << 34 ^ RANDOM << 19 ^ RANDOM << 4 ^ RANDOM))
    local shifted=$((bits >> (RANDOM % 52 + 1) & 0x7fffffffffffffff))
    case $((RANDOM % 4)) in
        0) printf '0x%x' $((shifted & ~0xfff)) ;;
        1) printf '0x%x' $(((shifted & ~0xfff) + 1)) ;;
        2) printf '0x%x' $((shifted | 0xfff)) ;;
        *) printf '0x%x' $((bits & ~0xffff)) ;;
    esac
}

random_end() {
    local sizes=(1 0x800 0x1000 0x10000 0x100000 0x40000000) last
    last=$(($1 + ${sizes[RANDOM % 6]} - 1))
    # Beyond the end of the address space: to its end.
    if [ $(($1)) -lt 0 ] && [ $last -ge 0 ]; then last=-1; fi
    printf '0x%x' $last
}

# What the kernel is told.
kernel_arguments() {
    case $1 in
        vtd* | igd) echo console=ttyS0 intel_iommu=on ;;
        amd*) echo console=ttyS0 ;;
        *) echo console=ttyAMA0 ;;
    esac
    echo quiet panic=-1
}

# Boots HOST with KERNEL on the job in WORK/job; what the guest wrote comes into WORK/out.
boot() {
    local host=$1 version=$2 work=$3 architecture disk machine
    architecture=$(arch_of "$host")
    pack_guest "$host" "$version" "$architecture" "$work"
    truncate -s 4G "$work/disk"
    case $architecture in
        amd64) disk=ide-hd ;;
        arm64) disk=virtio-blk-device ;;
    esac
    mapfile -t machine < <(machine_of "$host")
    timeout "${KERNELS_TIMEOUT:-1800}" "$(qemu_of "$architecture")" "${machine[@]}" \
        -accel "$accel" -cpu "$(cpu_of "$architecture")" -m 2G -nodefaults -display none \
        -serial stdio -monitor none -no-reboot \
        -kernel "$cache/$version-$architecture/vmlinuz" -initrd "$work/initrd" \
        -append "$(kernel_arguments "$host" | tr '\n' ' ')" \
        -drive "file=$work/disk,format=raw,if=none,id=disk" -device $disk,drive=disk \
        >"$work/console" 2>"$work/qemu.log" </dev/null ||
        { cat "$work/qemu.log" "$work/console" >&2; say "QEMU failed"; return 1; }
    mkdir -p "$work/out"
    tar -xf "$work/disk" -C "$work/out" 2>/dev/null ||
        { cat "$work/console" >&2; say "the guest wrote nothing"; return 1; }
    grep -a -E '^(guest|vfio-sim):' "$work/console" | tr -d '\r' >"$work/guest.log" || true
}

qemu_of() {
    case $1 in
        amd64) echo qemu-system-x86_64 ;;
        arm64) echo qemu-system-aarch64 ;;
    esac
}

cpu_of() {
    [ -z "$cpu" ] || { echo "$cpu"; return; }
    case $1-$accel in
        *-kvm) echo host,-arch-capabilities ;;
        amd64-*) echo max ;;
        arm64-*) echo cortex-a72 ;;
    esac
}

# How a guest names the host: a file that the job brings, or a name that the tool knows.
host_argument() {
    case $1 in
        viommu) echo /job/viommu.toml ;;
        amd-top) echo amd ;;
        *) echo "$1" ;;
    esac
}

# The start of a job: which devices, which host, which disk.
write_job() {
    local host=$1 job=$2
    mkdir -p "$job"
    [ ! -e "$here/hosts/$host.toml" ] || cp "$here/hosts/$host.toml" "$job"
    {
        echo "devices='$(devices_of "$host")'"
        echo "host=$(host_argument "$host")"
        case $(arch_of "$host") in
            amd64) echo disk=/dev/sda ;;
            arm64) echo disk=/dev/vda random_options=--no-torn-writes ;;
        esac
    } >"$job/job"
}

check_needs() {
    need cargo "of Rust itself, by rustup"
    need cpio cpio
    need depmod kmod
    need xz xz-utils
    need dpkg-deb dpkg
    need iasl acpica-tools
    case $(arch_of "$1") in
        amd64) need qemu-system-x86_64 qemu-system-x86 ;;
        arm64) need qemu-system-aarch64 qemu-system-arm ;;
    esac
}
