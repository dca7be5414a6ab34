// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands, sizes and offsets, held against `vfio-bindings` when this crate is compiled.
//! Integers are little-endian; offsets and sizes are in bytes.

use std::mem::{offset_of, size_of};

use vfio_bindings::bindings::vfio as uapi;

/// The ioctl commands of a device, all of the form `_IO(';', 100 + n)`.
pub mod command {
    use super::io;

    /// `VFIO_DEVICE_GET_INFO`.
    pub const GET_INFO: u32 = io(7);
    /// `VFIO_DEVICE_GET_REGION_INFO`.
    pub const GET_REGION_INFO: u32 = io(8);
    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    pub const GET_IRQ_INFO: u32 = io(9);
    /// `VFIO_DEVICE_SET_IRQS`.
    pub const SET_IRQS: u32 = io(10);
    /// `VFIO_DEVICE_RESET`. The argument says nothing.
    pub const RESET: u32 = io(11);
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`.
    pub const GET_PCI_HOT_RESET_INFO: u32 = io(12);
    /// `VFIO_DEVICE_PCI_HOT_RESET`.
    pub const PCI_HOT_RESET: u32 = io(13);
    /// `VFIO_DEVICE_FEATURE`.
    pub const FEATURE: u32 = io(17);
}

const fn io(number: u32) -> u32 {
    (uapi::VFIO_TYPE as u32) << 8 | (uapi::VFIO_BASE + number)
}

/// `struct vfio_device_info` and the flags in it.
pub(super) mod device_info {
    /// What a caller must pass at least.
    pub(crate) const MINIMUM: usize = 16;
    /// Up to the end of `cap_offset`: what kernels before 6.6 know of the structure.
    pub(crate) const WITHOUT_PAD: usize = 20;
    pub(crate) const SIZE: usize = 24;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const REGIONS: usize = 8;
    pub(crate) const IRQS: usize = 12;
    pub(crate) const FLAG_RESET: u32 = 1;
    pub(crate) const FLAG_PCI: u32 = 2;
}

/// `struct vfio_region_info`, the flags in it, and the one capability that may follow.
pub(super) mod region_info {
    pub(crate) const SIZE: usize = 32;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const INDEX: usize = 8;
    pub(crate) const CAP_OFFSET: usize = 12;
    pub(crate) const LENGTH: usize = 16;
    pub(crate) const OFFSET: usize = 24;
    pub(crate) const FLAG_READ: u32 = 1;
    pub(crate) const FLAG_WRITE: u32 = 2;
    pub(crate) const FLAG_MMAP: u32 = 4;
    pub(crate) const FLAG_CAPS: u32 = 8;
    /// A capability of nothing but its header: identifier, version 1, no next one. It follows the structure.
    pub(crate) const CAPABILITY: usize = 8;
    pub(crate) const CAPABILITY_AT: u32 = 32;
    pub(crate) const WITH_CAPABILITY: u32 = 40;
    pub(crate) const MSIX_MAPPABLE: u32 = 3;
    pub(crate) const VERSION: u32 = 1;
}

/// `struct vfio_irq_info` and the flags in it.
pub(super) mod irq_info {
    pub(crate) const SIZE: usize = 16;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const INDEX: usize = 8;
    pub(crate) const COUNT: usize = 12;
    pub(crate) const FLAG_EVENTFD: u32 = 1;
    pub(crate) const FLAG_MASKABLE: u32 = 2;
    pub(crate) const FLAG_AUTOMASKED: u32 = 4;
    pub(crate) const FLAG_NORESIZE: u32 = 8;
}

/// `struct vfio_irq_set`, behind which the data are, and the flags in it.
pub(super) mod irq_set {
    pub(crate) const SIZE: usize = 20;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const INDEX: usize = 8;
    pub(crate) const START: usize = 12;
    pub(crate) const COUNT: usize = 16;
    pub(crate) const DATA_NONE: u32 = 1;
    pub(crate) const DATA_BOOL: u32 = 2;
    pub(crate) const DATA_EVENTFD: u32 = 4;
    pub(crate) const DATA_MASK: u32 = 7;
    pub(crate) const MASK: u32 = 8;
    pub(crate) const UNMASK: u32 = 16;
    pub(crate) const TRIGGER: u32 = 32;
    pub(crate) const ACTION_MASK: u32 = 56;
}

/// `struct vfio_pci_hot_reset_info` and `struct vfio_pci_hot_reset`, up to their lists.
pub(super) mod hot_reset {
    pub(crate) const SIZE: usize = 12;
    pub(crate) const FLAGS: usize = 4;
}

/// `struct vfio_device_feature` and the flags in it.
pub(super) mod feature {
    pub(crate) const SIZE: usize = 8;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const NUMBER: u32 = 0xffff;
    pub(crate) const GET: u32 = 1 << 16;
    pub(crate) const SET: u32 = 1 << 17;
    pub(crate) const PROBE: u32 = 1 << 18;
}

macro_rules! same_offsets {
    ($structure:ident: $($field:ident = $offset:expr),* $(,)?) => {
        $(assert!(offset_of!(uapi::$structure, $field) == $offset);)*
    };
}

const _: () = {
    assert!(command::GET_INFO == 0x3b6b && command::FEATURE == 0x3b75);

    assert!(size_of::<uapi::vfio_device_info>() == device_info::SIZE);
    same_offsets!(vfio_device_info: argsz = 0, flags = device_info::FLAGS,
        num_regions = device_info::REGIONS, num_irqs = device_info::IRQS,
        cap_offset = device_info::MINIMUM, pad = device_info::WITHOUT_PAD);
    assert!(uapi::VFIO_DEVICE_FLAGS_RESET == device_info::FLAG_RESET);
    assert!(uapi::VFIO_DEVICE_FLAGS_PCI == device_info::FLAG_PCI);

    assert!(size_of::<uapi::vfio_region_info>() == region_info::SIZE);
    same_offsets!(vfio_region_info: argsz = 0, flags = region_info::FLAGS,
        index = region_info::INDEX, cap_offset = region_info::CAP_OFFSET,
        size = region_info::LENGTH, offset = region_info::OFFSET);
    assert!(uapi::VFIO_REGION_INFO_FLAG_READ == region_info::FLAG_READ);
    assert!(uapi::VFIO_REGION_INFO_FLAG_WRITE == region_info::FLAG_WRITE);
    assert!(uapi::VFIO_REGION_INFO_FLAG_MMAP == region_info::FLAG_MMAP);
    assert!(uapi::VFIO_REGION_INFO_FLAG_CAPS == region_info::FLAG_CAPS);
    assert!(uapi::VFIO_REGION_INFO_CAP_MSIX_MAPPABLE == region_info::MSIX_MAPPABLE);
    assert!(size_of::<uapi::vfio_info_cap_header>() == region_info::CAPABILITY);
    assert!(region_info::CAPABILITY_AT as usize == region_info::SIZE);
    assert!(region_info::WITH_CAPABILITY as usize == region_info::SIZE + region_info::CAPABILITY);

    assert!(size_of::<uapi::vfio_irq_info>() == irq_info::SIZE);
    same_offsets!(vfio_irq_info: argsz = 0, flags = irq_info::FLAGS, index = irq_info::INDEX,
        count = irq_info::COUNT);
    assert!(uapi::VFIO_IRQ_INFO_EVENTFD == irq_info::FLAG_EVENTFD);
    assert!(uapi::VFIO_IRQ_INFO_MASKABLE == irq_info::FLAG_MASKABLE);
    assert!(uapi::VFIO_IRQ_INFO_AUTOMASKED == irq_info::FLAG_AUTOMASKED);
    assert!(uapi::VFIO_IRQ_INFO_NORESIZE == irq_info::FLAG_NORESIZE);

    same_offsets!(vfio_irq_set: argsz = 0, flags = irq_set::FLAGS, index = irq_set::INDEX,
        start = irq_set::START, count = irq_set::COUNT, data = irq_set::SIZE);
    assert!(uapi::VFIO_IRQ_SET_DATA_NONE == irq_set::DATA_NONE);
    assert!(uapi::VFIO_IRQ_SET_DATA_BOOL == irq_set::DATA_BOOL);
    assert!(uapi::VFIO_IRQ_SET_DATA_EVENTFD == irq_set::DATA_EVENTFD);
    assert!(uapi::VFIO_IRQ_SET_DATA_TYPE_MASK == irq_set::DATA_MASK);
    assert!(uapi::VFIO_IRQ_SET_ACTION_MASK == irq_set::MASK);
    assert!(uapi::VFIO_IRQ_SET_ACTION_UNMASK == irq_set::UNMASK);
    assert!(uapi::VFIO_IRQ_SET_ACTION_TRIGGER == irq_set::TRIGGER);
    assert!(uapi::VFIO_IRQ_SET_ACTION_TYPE_MASK == irq_set::ACTION_MASK);

    same_offsets!(vfio_pci_hot_reset_info: argsz = 0, flags = hot_reset::FLAGS,
        devices = hot_reset::SIZE);
    same_offsets!(vfio_pci_hot_reset: argsz = 0, flags = hot_reset::FLAGS,
        group_fds = hot_reset::SIZE);

    same_offsets!(vfio_device_feature: argsz = 0, flags = feature::FLAGS, data = feature::SIZE);
    assert!(uapi::VFIO_DEVICE_FEATURE_MASK == feature::NUMBER);
    assert!(uapi::VFIO_DEVICE_FEATURE_GET == feature::GET);
    assert!(uapi::VFIO_DEVICE_FEATURE_SET == feature::SET);
    assert!(uapi::VFIO_DEVICE_FEATURE_PROBE == feature::PROBE);
};
