// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of the bytes that an iommufd and a device's own node take.

use std::sync::Arc;

use vfio_type1::abi::command;
use vfio_type1::{FdTarget, Iommufd, ModelMemory, Process, Vaddr, Vfio};

use crate::common::{self, RAM, ROM, device_name, group, msi, vtd};
use crate::{Broken, K, broken};

/// Words of 32 bits, little-endian, one after the other.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A program and its iommufd, with one address space, number 1.
struct Program {
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    iommufd: Iommufd,
}

impl Program {
    /// Issues an ioctl whose argument is in memory that can be written, or not.
    fn issue(
        &self,
        command: u32,
        argument: &[u32],
        at: u64,
    ) -> Result<i32, vfio_type1::abi::IommufdIoctlError> {
        self.memory.poke(Vaddr(at), &words(argument)).unwrap();
        self.iommufd.ioctl(&self.process, command, at)
    }
}

pub(crate) fn break_iommufd_bytes(broken: &mut Broken) {
    let vfio = Vfio::new(K, [group(&vtd(48), 1, vec![msi()])]).unwrap();
    let memory = common::memory();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let iommufd = vfio.open_iommu().unwrap();
    iommufd.ioas_alloc();
    let program = Program { memory, process, iommufd };
    let issue = |command, argument: &[u32]| program.issue(command, argument, RAM);
    let read_only = |command, argument: &[u32]| program.issue(command, argument, ROM);

    broken!(broken, "IommufdIoctlError", issue(0x3b7f, &[0]), ENOTTY);
    broken!(broken, "IommufdIoctlError", issue(0x3c81, &[12]), ENOTTY);
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_COPY, &[40]), EOPNOTSUPP);
    let unmapped = program.iommufd.ioctl(&program.process, command::IOAS_ALLOC, 0);
    broken!(broken, "IommufdIoctlError", unmapped, EFAULT);
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_ALLOC, &[8, 0, 0]), EINVAL);
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_ALLOC, &[16, 0, 0, 1]), E2BIG);
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_ALLOC, &[12, 1, 0]), EOPNOTSUPP);
    let ranges = &[32, 9, 0, 0, 0, 0, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_IOVA_RANGES, ranges), ENOENT);
    let ranges = &[32, 1, 0, 0, 0, 0, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_IOVA_RANGES, ranges), EMSGSIZE);
    let get = &[12, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOMMU_VFIO_IOAS, get), ENODEV);
    broken!(broken, "IommufdIoctlError", issue(command::IOMMU_DESTROY, &[8, 9]), ENOENT);
    let allow = &[24, 9, 0, 0, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_ALLOW_IOVAS, allow), ENOENT);
    let allow = &[24, 1, 1, 0, 0x10, RAM_HIGH];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_ALLOW_IOVAS, allow), EINVAL);
    let map = |flags| [40, flags, 1, 0, 0, RAM_HIGH, 0x1000, 0, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_MAP, &map(0)), EINVAL);
    broken!(broken, "IommufdIoctlError", read_only(command::IOAS_MAP, &map(7)), EFAULT);
    let unmap = &[24, 9, 0, 0, 0x1000, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOAS_UNMAP, unmap), ENOENT);
    let unmap = &[24, 1, 0, 0, 0x1000, 0];
    broken!(broken, "IommufdIoctlError", read_only(command::IOAS_UNMAP, unmap), EFAULT);
    let option = &[24, 0, 0, 0, 1, 0];
    broken!(broken, "IommufdIoctlError", issue(command::IOMMU_OPTION, option), EBUSY);
    let info = &[40, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::GET_HW_INFO, info), ENOENT);
    let alloc = &[24, 0, 9, 1, 0, 0];
    broken!(broken, "IommufdIoctlError", issue(command::HWPT_ALLOC, alloc), ENOENT);

    break_compat_bytes(broken, &program);
    break_cdev_bytes(broken, &vfio, &program);
}

/// The upper half of [`RAM`].
const RAM_HIGH: u32 = 0x1000;

fn break_compat_bytes(broken: &mut Broken, program: &Program) {
    let mut compat = |result: Result<i32, vfio_type1::abi::IommufdIoctlError>, errno| {
        let vfio_type1::abi::IommufdIoctlError::Compat(error) = result.unwrap_err() else {
            panic!("one of type1's commands");
        };
        broken.add("CompatIoctlError", &error, error.errno(), errno);
    };
    use vfio_type1::Errno;
    let issue = |command, argument: &[u32]| program.issue(command, argument, RAM);
    compat(issue(command::IOMMU_DIRTY_PAGES, &[8, 1]), Errno::ENOTTY);
    compat(issue(command::IOMMU_GET_INFO, &[8, 0, 0, 0]), Errno::EINVAL);
    compat(issue(command::IOMMU_GET_INFO, &[16, 0, 0, 0]), Errno::ENODEV);
    compat(program.iommufd.ioctl(&program.process, command::SET_IOMMU, 0), Errno::EINVAL);
    compat(issue(command::IOMMU_MAP_DMA, &[32, 4, 0, 0, 0, 0, 0, 0]), Errno::EINVAL);
    compat(issue(command::IOMMU_UNMAP_DMA, &[24, 4, 0, 0, 0, 0]), Errno::EINVAL);
    program.iommufd.set_compat_ioas(1).unwrap();
    let all = program.issue(command::IOMMU_UNMAP_DMA, &[24, 2, 0, 0, 0, 0], ROM);
    compat(all, Errno::EFAULT);
}

fn break_cdev_bytes(broken: &mut Broken, vfio: &Vfio, program: &Program) {
    let device = vfio.open_cdev(&device_name(1)).unwrap();
    let target = || FdTarget::Iommufd(program.iommufd.clone());
    let issue = |command, argument: &[u32]| {
        program.memory.poke(Vaddr(RAM), &words(argument)).unwrap();
        device.ioctl(&program.process, command, RAM, |_| target())
    };
    let (bind, attach) = (command::DEVICE_BIND_IOMMUFD, command::DEVICE_ATTACH_IOMMUFD_PT);
    broken!(broken, "CdevIoctlError", issue(attach, &[12, 0, 1]), EINVAL);
    broken!(broken, "CdevIoctlError", issue(bind, &[8, 0, 0, 0]), EINVAL);
    broken!(broken, "CdevIoctlError", issue(bind, &[16, 1, 0, 0]), EINVAL);
    broken!(broken, "CdevIoctlError", issue(bind, &[16, 0, u32::MAX, 0]), EINVAL);
    assert!(issue(bind, &[16, 0, 5, 0]).is_ok());
    broken!(broken, "CdevIoctlError", issue(command::GET_API_VERSION, &[0]), ENOTTY);
    broken!(broken, "CdevIoctlError", issue(attach, &[12, 1, 1]), EOPNOTSUPP);
    broken!(broken, "CdevIoctlError", issue(attach, &[12, 2, 1]), EINVAL);
    broken!(broken, "CdevIoctlError", issue(attach, &[12, 0, 99]), ENOENT);
}
