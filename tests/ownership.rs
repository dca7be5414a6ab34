// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: who may use a group is decided as in the kernel: viability, firmware-owned memory, MSI
//! isolation, noiommu (spec 2, 3.9, 7.5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{device_name, group, iommu, msi, process, vtd};
use vfio_type1::{
    Behaviours, Binding, Container, DeviceDescription, Errno, FdTarget, FixedIommu,
    GroupDescription, GroupId, GroupKind, Iommu, IommuDriver, Kernel, OpenGroup, Process,
    RegionKind, ReservedRegion, Vfio, extension,
};

fn open(vfio: &Vfio, number: u32, process: &Process) -> OpenGroup {
    vfio.open_group(GroupId::Numbered(number), process).unwrap()
}

/// The errno of SET_CONTAINER, then of SET_IOMMU, for group 1 alone.
fn attach(vfio: &Vfio) -> Result<Container, (&'static str, Errno)> {
    let (process, container) = (process(), vfio.open_container());
    let group = open(vfio, 1, &process);
    group.set_container(&container, &process).map_err(|error| ("SET_CONTAINER", error.errno()))?;
    container
        .set_iommu(&process, extension::TYPE1V2)
        .map_err(|error| ("SET_IOMMU", error.errno()))?;
    Ok(container)
}

#[test]
fn firmware_memory_is_refused_where_each_kernel_refuses_it() {
    let rmrr = ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct);
    let amd: Arc<dyn Iommu> = Arc::new(iommu(IommuDriver::AmdVi, 48));
    let cases = [
        (Kernel::V5_10, Err(("SET_IOMMU", Errno::EPERM)), Ok(())),
        (Kernel::V6_1, Err(("SET_CONTAINER", Errno::EPERM)), Ok(())),
        (
            Kernel::V6_12,
            Err(("SET_CONTAINER", Errno::EINVAL)),
            Err(("SET_CONTAINER", Errno::EINVAL)),
        ),
    ];
    for (kernel, intel, other) in cases {
        for (iommu, expected) in [(&vtd(48), intel), (&amd, other)] {
            let vfio = Vfio::new(kernel, [group(iommu, 1, vec![rmrr, msi()])]).unwrap();
            assert_eq!(attach(&vfio).map(drop), expected, "{:?}, {kernel}", iommu.driver());
        }
    }
}

#[test]
fn a_kernel_of_ones_own_has_the_rules_it_is_given() {
    // The claim of 5.19 without its look at direct regions: VT-d then refuses the attach, as before.
    let direct_regions = Kernel::V5_10.behaviours().direct_regions;
    let kernel =
        Kernel::custom("mine", Behaviours { direct_regions, ..*Kernel::V6_1.behaviours() });
    let rmrr = ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct);
    let vfio = Vfio::new(kernel, [group(&vtd(48), 1, vec![rmrr, msi()])]).unwrap();
    assert_eq!(attach(&vfio).map(drop), Err(("SET_IOMMU", Errno::EPERM)));
}

#[test]
fn msis_must_be_isolated_or_the_parameter_set() {
    let open: Arc<dyn Iommu> =
        Arc::new(FixedIommu { isolated_msi: false, ..iommu(IommuDriver::IntelVtd, 48) });
    for kernel in Kernel::ALL {
        let vfio = Vfio::new(kernel, [group(&open, 1, vec![msi()])]).unwrap();
        assert_eq!(attach(&vfio).map(drop), Err(("SET_IOMMU", Errno::EPERM)), "{kernel}");
        vfio.set_allow_unsafe_interrupts(true);
        assert!(attach(&vfio).is_ok(), "{kernel}");
    }
}

/// Recorded on arm64 6.12. In 6.13 the type went.
#[test]
fn smmus_nest_until_their_domains_are_made_for_a_device() {
    for driver in [IommuDriver::SmmuV3, IommuDriver::SmmuV2] {
        let smmu: Arc<dyn Iommu> = Arc::new(iommu(driver, 48));
        let cases = [
            (Kernel::V5_10, Ok(())),
            (Kernel::V6_1, Ok(())),
            (Kernel::V6_12, Err(Errno::EPERM)),
            (Kernel::V7_2, Err(Errno::ENODEV)),
        ];
        for (kernel, expected) in cases {
            let vfio = Vfio::new(kernel, [group(&smmu, 1, vec![msi()])]).unwrap();
            let (process, container) = (process(), vfio.open_container());
            let group = open(&vfio, 1, &process);
            group.set_container(&container, &process).unwrap();
            let set = container.set_iommu(&process, extension::NESTING);
            assert_eq!(set.map_err(|error| error.errno()), expected, "{driver}, {kernel}");
        }
    }
}

fn shared_with_the_kernel(kernel: Kernel) -> Vfio {
    let mut group = group(&vtd(48), 1, vec![msi()]);
    let mut other = DeviceDescription::new("0000:00:1f.2", vec![msi()]);
    other.binding = Binding::Kernel("ahci".to_owned());
    group.devices.push(other);
    Vfio::new(kernel, [group]).unwrap()
}

#[test]
fn a_group_shared_with_a_kernel_driver_is_not_viable() {
    let vfio = shared_with_the_kernel(Kernel::V6_12);
    let process = process();
    let group = open(&vfio, 1, &process);
    assert!(!group.status().viable);
    let error = group.set_container(&vfio.open_container(), &process).unwrap_err();
    assert_eq!(error.errno(), Errno::EPERM);
    assert!(error.to_string().contains("0000:00:1f.2 of group 1 is bound to"), "{error}");
}

#[test]
fn up_to_5_18_only_opening_a_device_fails() {
    let vfio = shared_with_the_kernel(Kernel::V5_10);
    let process = process();
    let (group, container) = (open(&vfio, 1, &process), vfio.open_container());
    group.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    let status = group.status();
    assert!(status.container_set && !status.viable);
    let error = group.open_device(&device_name(1), &process).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
}

#[test]
fn a_group_without_a_vfio_device_has_no_node() {
    let mut group = group(&vtd(48), 1, vec![msi()]);
    group.devices[0].binding = Binding::Unbound;
    let vfio = Vfio::new(Kernel::NEWEST, [group]).unwrap();
    let error = vfio.open_group(GroupId::Numbered(1), &process()).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
}

#[test]
fn device_names_and_containers_are_looked_at_in_the_kernels_order() {
    for (kernel, unknown_first) in [(Kernel::V5_10, Errno::EINVAL), (Kernel::V6_1, Errno::ENODEV)] {
        let vfio = Vfio::new(kernel, [group(&vtd(48), 1, vec![msi()])]).unwrap();
        let process = process();
        let group = open(&vfio, 1, &process);
        let errno = |name: &str| group.open_device(name, &process).unwrap_err().errno();
        assert_eq!(errno("bogus"), unknown_first, "{kernel}");
        assert_eq!(errno(&device_name(1)), Errno::EINVAL, "{kernel}");
    }
}

#[test]
fn file_descriptors_are_looked_at_in_the_kernels_order() {
    let errnos = |kernel: Kernel| {
        let vfio = Vfio::new(kernel, [group(&vtd(48), 1, vec![msi()])]).unwrap();
        let (process, container) = (process(), vfio.open_container());
        let group = open(&vfio, 1, &process);
        let set = |fd, target| group.set_container_fd(fd, target, &process).unwrap_err().errno();
        let before = [set(-1, FdTarget::Closed), set(9, FdTarget::Closed), set(0, FdTarget::Other)];
        group.set_container(&container, &process).unwrap();
        (before, set(9, FdTarget::Closed), set(0, FdTarget::Other))
    };
    use Errno as E;
    assert_eq!(errnos(Kernel::V5_10), ([E::EINVAL, E::EBADF, E::EINVAL], E::EINVAL, E::EINVAL));
    assert_eq!(errnos(Kernel::V6_1), ([E::EBADF, E::EBADF, E::EINVAL], E::EBADF, E::EINVAL));
    assert_eq!(errnos(Kernel::V6_12), ([E::EBADF, E::EBADF, E::EBADFD], E::EBADF, E::EINVAL));
}

#[test]
fn noiommu_needs_a_privilege_and_a_container_of_its_own() {
    let noiommu = GroupDescription {
        number: 0,
        kind: GroupKind::NoIommu,
        devices: vec![DeviceDescription::new("0000:00:04.0", Vec::new())],
    };
    let vfio = Vfio::new(Kernel::V7_3, [noiommu, group(&vtd(48), 1, vec![msi()])]).unwrap();
    vfio.set_noiommu(true);
    let (process, plain) = (process(), vfio.open_container());
    assert!(plain.check_extension(extension::NOIOMMU) && plain.check_extension(1));

    process.set_cap_sys_rawio(false);
    let refused = vfio.open_group(GroupId::NoIommu(0), &process).unwrap_err();
    assert_eq!(refused.errno(), Errno::EPERM);
    process.set_cap_sys_rawio(true);
    let group = vfio.open_group(GroupId::NoIommu(0), &process).unwrap();
    group.set_container(&plain, &process).unwrap();

    let mixed = open(&vfio, 1, &process).set_container(&plain, &process).unwrap_err();
    assert_eq!(mixed.errno(), Errno::EPERM);
    let wrong = plain.set_iommu(&process, extension::TYPE1V2).unwrap_err();
    assert_eq!(wrong.errno(), Errno::ENODEV);
    plain.set_iommu(&process, extension::NOIOMMU).unwrap();
    assert!(!plain.check_extension(extension::TYPE1));
    assert_eq!(plain.info().unwrap_err().errno(), Errno::ENOTTY);
}

#[test]
fn a_host_is_checked_when_it_is_built() {
    let twice = [group(&vtd(48), 1, vec![]), group(&vtd(48), 1, vec![])];
    assert!(Vfio::new(Kernel::NEWEST, twice).unwrap_err().to_string().contains("0000:00:01.0"));
    let mut empty = group(&vtd(48), 1, vec![]);
    empty.devices.clear();
    let error = Vfio::new(Kernel::NEWEST, [empty]).unwrap_err();
    assert_eq!(error.to_string(), "group 1 has no device");
}
