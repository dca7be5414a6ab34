// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SET_CONTAINER, SET_IOMMU and GET_DEVICE_FD, with the rules of attaching a group (spec 1.4, 2.4,
//! 2.6, 3.1).

use std::sync::Arc;

use vfio_type1::abi::{GroupReply, command};
use vfio_type1::{
    Access, Binding, Container, DeviceDescription, FdTarget, FixedIommu, GroupDescription, GroupId,
    GroupKind, Iommu, IommuDriver, Kernel, MapDma, OpenGroup, RegionKind, ReservedRegion, UnmapDma,
    Vfio, extension,
};

use crate::common::bytes::{Door, Place, Refusal, release};
use crate::common::{RAM, Rig, device_name, group, iommu, msi, process, vtd};
use crate::errno::{EBADF, EBADFD, EBUSY, EFAULT, EINVAL, EIO, ENODEV, ENOMEM, EPERM};
use crate::{Knob, Rule, Settings, check, rule};

use Knob::{Allocation, Direct, Driver, Fd, Mapped, Member, MsiIsolated, Name, NoIommu, Owned};
use Knob::{Bytes, RawIo, Reserved, Type, Width};

/// For [`Knob::Fd`].
const CONTAINER: u64 = 7;
const OTHER_FILE: u64 = 8;
const CLOSED: u64 = 9;
const NEGATIVE: u64 = 0xffff_ffff;
/// For [`Knob::Mapped`]: the mapping in the container has lost its process address.
const LOST: u64 = 1;
/// For [`Knob::Member`]: the group is in no container, or in another one.
const NOWHERE: u64 = 0;
const ELSEWHERE: u64 = 1;
/// For [`Knob::Name`].
const WRONG: u64 = 1;
const WITH_OPTION: u64 = 2;
const LONG: u64 = 3;

/// A container with group 1 and a driver, and group 2, which is what the settings want.
struct Scene {
    door: Door,
    group: OpenGroup,
    elsewhere: Container,
}

impl Scene {
    fn new(kernel: Kernel, settings: &Settings) -> Self {
        let host = [group(&vtd(48), 1, vec![msi()]), subject(settings)];
        let vfio = Vfio::new(kernel, host).unwrap();
        vfio.set_noiommu(true);
        let (process, container) = (process(), vfio.open_container());
        let first = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
        first.set_container(&container, &process).unwrap();
        container.set_iommu(&process, extension::TYPE1V2).unwrap();
        let number = if is_noiommu(settings) { GroupId::NoIommu(2) } else { GroupId::Numbered(2) };
        let group = vfio.open_group(number, &process).unwrap();
        let elsewhere = vfio.open_container();
        let door = Door::of(Rig { container, process, groups: vec![first], vfio });
        Self { door, group, elsewhere }
    }

    /// Puts the group into the container that is all its own, and gives that a driver.
    fn settle(&self, settings: &Settings, with_driver: bool) {
        let process = &self.door.rig.process;
        if settings.is(Member, NOWHERE) {
            return;
        }
        self.group.set_container(&self.elsewhere, process).unwrap();
        if with_driver {
            let noiommu = is_noiommu(settings);
            let kind = if noiommu { extension::NOIOMMU } else { extension::TYPE1V2 };
            self.elsewhere.set_iommu(process, kind).unwrap();
        }
    }

    /// From here on what the caller may not do and what fails are as the settings want it.
    fn begin(&self, settings: &Settings) {
        self.door.rig.process.set_cap_sys_rawio(settings.or(RawIo, 1) == 1);
        if let Some(nth) = settings.get(Allocation) {
            self.door.rig.vfio.inject(format!("allocation:{nth}").parse().unwrap());
        }
    }

    /// An ioctl of the group, on an argument that ends where memory ends.
    fn issue(&self, command: u32, bytes: &[u8], target: FdTarget) -> Result<i32, Refusal> {
        let arg = self.door.put(Place::AtEnd, bytes);
        match self.group.ioctl(&self.door.rig.process, command, arg, |_| target) {
            Ok(GroupReply::Done | GroupReply::Device(_)) => Ok(0),
            Err(error) => Err(Refusal::new(error.errno(), &error)),
        }
    }
}

fn is_noiommu(settings: &Settings) -> bool {
    settings.is(NoIommu, 1)
}

/// Group 2.
fn subject(settings: &Settings) -> GroupDescription {
    let width = u32::try_from(settings.or(Width, 39)).unwrap();
    let isolated_msi = settings.or(MsiIsolated, 1) == 1;
    let behind: Arc<dyn Iommu> =
        Arc::new(FixedIommu { isolated_msi, ..iommu(IommuDriver::IntelVtd, width) });
    let mut regions = vec![msi()];
    if settings.is(Direct, 1) {
        regions.push(ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct));
    }
    if let Some(last) = settings.get(Reserved) {
        regions.push(ReservedRegion::new(0, last, RegionKind::Reserved));
    }
    let mut subject = group(&behind, 2, regions);
    if settings.is(Owned, 1) {
        let binding = Binding::Kernel("ahci".to_owned());
        let used = DeviceDescription::new("0000:00:1f.2", Vec::new());
        subject.devices.push(DeviceDescription { binding, ..used });
    }
    if is_noiommu(settings) {
        subject.kind = GroupKind::NoIommu;
    }
    subject
}

/// Whether the kernel keeps a list of valid addresses.
fn has_list(kernel: Kernel) -> bool {
    kernel.name() != "4.19"
}

/// A domain that cannot be had for lack of memory.
fn no_domain(kernel: Kernel) -> vfio_type1::Errno {
    if release(kernel) <= (6, 1) { EIO } else { ENOMEM }
}

fn set_container_rules(kernel: Kernel) -> Vec<Rule> {
    let mut rules = match release(kernel) >= (5, 19) {
        true => Vec::from(rules_of_fds(kernel)),
        false => Vec::from(rules_of_fds_up_to_5_18()),
    };
    // The rules of attaching begin at step 100.
    rules.extend([
        rule(103, "NoMemory", ENOMEM, &[(NoIommu, 0), (Allocation, 1)]),
        rule(105, "NoMemory", no_domain(kernel), &[(NoIommu, 0), (Allocation, 2)]),
        rule(113, "MsiNotIsolated", EPERM, &[(NoIommu, 0), (MsiIsolated, 0)]),
    ]);
    if release(kernel) >= (5, 12) {
        rules.push(rule(101, "VaddrsInvalid", EBUSY, &[(NoIommu, 0), (Mapped, LOST)]));
    }
    if release(kernel) < (5, 19) {
        rules.push(rule(107, "FirmwareOwned", EPERM, &[(NoIommu, 0), (Direct, 1)]));
    }
    rules.extend(match has_list(kernel) {
        true => vec![
            rule(108, "ApertureConflict", EINVAL, &[(NoIommu, 0), (Width, 20)]),
            rule(109, "NoMemory", ENOMEM, &[(NoIommu, 0), (Allocation, 3)]),
            rule(110, "ReservedConflict", EINVAL, &[(NoIommu, 0), (Reserved, 0x1f_ffff)]),
            rule(111, "NoMemory", ENOMEM, &[(NoIommu, 0), (Allocation, 4)]),
            rule(116, "NoMemory", ENOMEM, &[(NoIommu, 0), (Allocation, 5)]),
        ],
        false => vec![
            rule(116, "ReplayIommu", EFAULT, &[(NoIommu, 0), (Width, 20)]),
            rule(116, "NoMemory", ENOMEM, &[(NoIommu, 0), (Allocation, 3)]),
        ],
    });
    rules
}

fn rules_of_fds(kernel: Kernel) -> [Rule; 9] {
    let not_a_container = if release(kernel) >= (6, 2) { EBADFD } else { EINVAL };
    let direct = if release(kernel) >= (6, 6) { EINVAL } else { EPERM };
    let already = [(Member, ELSEWHERE), (Owned, 0), (Direct, 0)];
    [
        rule(1, "Fault", EFAULT, &[(Bytes, 3)]),
        rule(2, "NegativeFd", EBADF, &[(Fd, NEGATIVE)]),
        rule(2, "BadFd", EBADF, &[(Fd, CLOSED)]),
        rule(3, "AlreadySet", EINVAL, &already),
        rule(4, "NotAContainer", not_a_container, &[(Fd, OTHER_FILE)]),
        rule(5, "NeedsRawIo", EPERM, &[(NoIommu, 1), (RawIo, 0)]),
        rule(6, "MixedKinds", EPERM, &[(NoIommu, 1)]),
        rule(7, "KernelOwned", EPERM, &[(NoIommu, 0), (Owned, 1)]),
        rule(8, "DirectRegion", direct, &[(NoIommu, 0), (Direct, 1)]),
    ]
}

fn rules_of_fds_up_to_5_18() -> [Rule; 7] {
    [
        rule(1, "Fault", EFAULT, &[(Bytes, 3)]),
        rule(2, "NegativeFd", EINVAL, &[(Fd, NEGATIVE)]),
        rule(3, "AlreadySet", EINVAL, &[(Member, ELSEWHERE)]),
        rule(4, "NeedsRawIo", EPERM, &[(NoIommu, 1), (RawIo, 0)]),
        rule(5, "BadFd", EBADF, &[(Fd, CLOSED)]),
        rule(6, "NotAContainer", EINVAL, &[(Fd, OTHER_FILE)]),
        rule(7, "MixedKinds", EPERM, &[(NoIommu, 1)]),
    ]
}

fn set_container(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let scene = Scene::new(kernel, settings);
    let Rig { container, process, .. } = &scene.door.rig;
    container.map(process, &MapDma::new(0x10_0000, RAM, 0x1000, Access::Read)).unwrap();
    if settings.is(Mapped, LOST) {
        container.unmap(process, &UnmapDma::all().vaddr_only()).unwrap();
    }
    if settings.is(Member, ELSEWHERE) {
        scene.settle(settings, false);
    }
    scene.begin(settings);
    let fd = settings.or(Fd, CONTAINER);
    let target = match fd {
        CONTAINER => FdTarget::Container(container.clone()),
        OTHER_FILE => FdTarget::Other,
        _ => FdTarget::Closed,
    };
    let fd = u32::try_from(fd).unwrap().to_le_bytes();
    let length = usize::try_from(settings.or(Bytes, 4)).unwrap();
    scene.issue(command::GROUP_SET_CONTAINER, &fd[..length], target)
}

fn set_iommu_rules(kernel: Kernel) -> Vec<Rule> {
    let since = |major, minor| release(kernel) >= (major, minor);
    let iommu = (NoIommu, 0);
    let mut rules = vec![
        rule(1, "NoGroup", EINVAL, &[(Member, NOWHERE)]),
        rule(1, "AlreadySet", EINVAL, &[(Driver, 1), (MsiIsolated, 1), (Direct, 0), (Reserved, 0)]),
        rule(20, "UnknownType", ENODEV, &[(Type, 0)]),
        rule(20, "UnknownType", ENODEV, &[(Type, 10)]),
        rule(20, "UnknownType", ENODEV, &[(Type, 1 << 32 | 3)]),
        rule(20, "UnknownType", ENODEV, &[iommu, (Type, extension::NOIOMMU)]),
        rule(20, "UnknownType", ENODEV, &[(NoIommu, 1), (Type, extension::TYPE1V2)]),
        rule(21, "OutOfMemory", ENOMEM, &[iommu, (Allocation, 1)]),
        rule(22, "NeedsRawIo", EPERM, &[(NoIommu, 1), (Type, extension::NOIOMMU), (RawIo, 0)]),
        rule(103, "NoMemory", ENOMEM, &[iommu, (Allocation, 2)]),
        rule(105, "NoMemory", no_domain(kernel), &[iommu, (Allocation, 3)]),
        rule(113, "MsiNotIsolated", EPERM, &[iommu, (MsiIsolated, 0)]),
    ];
    rules.push(match since(5, 12) {
        true => rule(22, "NotAType", EINVAL, &[iommu, (Type, extension::UNMAP_ALL)]),
        false => rule(20, "UnknownType", ENODEV, &[(Type, extension::UNMAP_ALL)]),
    });
    rules.push(match since(6, 13) {
        true => rule(20, "UnknownType", ENODEV, &[(Type, extension::NESTING)]),
        false => {
            let errno = if since(5, 6) && !since(6, 1) { ENODEV } else { EINVAL };
            rule(106, "NoNesting", errno, &[iommu, (Type, extension::NESTING)])
        }
    });
    if !since(5, 19) {
        rules.push(rule(107, "FirmwareOwned", EPERM, &[iommu, (Direct, 1)]));
    }
    if has_list(kernel) {
        rules.extend([
            rule(109, "NoMemory", ENOMEM, &[iommu, (Allocation, 4)]),
            rule(111, "NothingLeft", EINVAL, &[iommu, (Reserved, u64::MAX)]),
            rule(111, "NoMemory", ENOMEM, &[iommu, (Allocation, 5)]),
        ]);
    }
    rules
}

fn set_iommu(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let scene = Scene::new(kernel, settings);
    scene.settle(settings, settings.is(Driver, 1));
    scene.begin(settings);
    let default = if is_noiommu(settings) { extension::NOIOMMU } else { extension::TYPE1V2 };
    let process = &scene.door.rig.process;
    scene
        .elsewhere
        .ioctl(process, command::SET_IOMMU, settings.or(Type, default))
        .map_err(|error| Refusal::new(error.errno(), &error))
}

fn get_device_rules(kernel: Kernel) -> Vec<Rule> {
    let name_first = release(kernel) >= (6, 0);
    let (name, container, rights) = if name_first { (2, 4, 5) } else { (6, 4, 5) };
    let mut rules = vec![
        rule(1, "Fault", EFAULT, &[(Bytes, 1)]),
        rule(1, "NameTooLong", EINVAL, &[(Name, LONG)]),
        rule(name, "NoDevice", ENODEV, &[(Name, WRONG)]),
        rule(container, "NoContainer", EINVAL, &[(Member, NOWHERE)]),
        rule(container, "NoDriver", EINVAL, &[(Driver, 0)]),
        rule(rights, "NeedsRawIo", EPERM, &[(NoIommu, 1), (RawIo, 0)]),
    ];
    rules.push(match release(kernel) >= (5, 7) {
        true => rule(name, "Options", EINVAL, &[(Name, WITH_OPTION)]),
        false => rule(name, "NoDevice", ENODEV, &[(Name, WITH_OPTION)]),
    });
    if release(kernel) < (5, 19) {
        rules.push(rule(container, "NotViable", EINVAL, &[(Owned, 1)]));
    }
    rules
}

fn get_device(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let scene = Scene::new(kernel, settings);
    scene.settle(settings, !settings.is(Driver, 0));
    scene.begin(settings);
    let own = device_name(2);
    let mut name = match settings.get(Name) {
        None => own.into_bytes(),
        Some(WRONG) => device_name(3).into_bytes(),
        Some(WITH_OPTION) => format!("{own} vf_token=1").into_bytes(),
        Some(_) => vec![b'a'; 4095],
    };
    // The end of a long name would lie behind a page; any byte that is none will do.
    name.push(if settings.is(Name, LONG) { b'a' } else { 0 });
    let missing = usize::try_from(settings.or(Bytes, 0)).unwrap();
    let bytes = &name[..name.len() - missing];
    scene.issue(command::GROUP_GET_DEVICE_FD, bytes, FdTarget::Closed)
}

#[test]
fn of_two_broken_rules_of_set_container_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &set_container_rules(kernel), set_container);
        assert!(pairs > 50, "{kernel}: {pairs} pairs");
    }
}

#[test]
fn of_two_broken_rules_of_set_iommu_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &set_iommu_rules(kernel), set_iommu);
        assert!(pairs > 50, "{kernel}: {pairs} pairs");
    }
}

#[test]
fn of_two_broken_rules_of_get_device_fd_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &get_device_rules(kernel), get_device);
        assert!(pairs > 20, "{kernel}: {pairs} pairs");
    }
}
