// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands, sizes and offsets, held against `vfio-bindings` when this crate is compiled.
//! Integers are little-endian; offsets and sizes are in bytes. Spec 0.3, 0.4.

use std::mem::{offset_of, size_of};

use vfio_bindings::bindings::vfio as uapi;

use crate::dirty::DirtyPages;
use crate::map::MapDma;
use crate::unmap::UnmapDma;

/// The ioctl commands, all of the form `_IO(';', 100 + n)`.
pub mod command {
    use super::{io, iommufd};

    /// `VFIO_GET_API_VERSION` (container).
    pub const GET_API_VERSION: u32 = io(0);
    /// `VFIO_CHECK_EXTENSION` (container; the argument is a number).
    pub const CHECK_EXTENSION: u32 = io(1);
    /// `VFIO_SET_IOMMU` (container; the argument is a number).
    pub const SET_IOMMU: u32 = io(2);
    /// `VFIO_GROUP_GET_STATUS` (group).
    pub const GROUP_GET_STATUS: u32 = io(3);
    /// `VFIO_GROUP_SET_CONTAINER` (group; the argument points to a file descriptor).
    pub const GROUP_SET_CONTAINER: u32 = io(4);
    /// `VFIO_GROUP_UNSET_CONTAINER` (group).
    pub const GROUP_UNSET_CONTAINER: u32 = io(5);
    /// `VFIO_GROUP_GET_DEVICE_FD` (group; the argument points to a name).
    pub const GROUP_GET_DEVICE_FD: u32 = io(6);
    /// `VFIO_IOMMU_GET_INFO` (container).
    pub const IOMMU_GET_INFO: u32 = io(12);
    /// `VFIO_IOMMU_MAP_DMA` (container).
    pub const IOMMU_MAP_DMA: u32 = io(13);
    /// `VFIO_IOMMU_UNMAP_DMA` (container).
    pub const IOMMU_UNMAP_DMA: u32 = io(14);
    /// `VFIO_IOMMU_DIRTY_PAGES` (container).
    pub const IOMMU_DIRTY_PAGES: u32 = io(17);

    /// `VFIO_DEVICE_BIND_IOMMUFD` (a device opened by its own node).
    pub const DEVICE_BIND_IOMMUFD: u32 = io(18);
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT` (a device opened by its own node).
    pub const DEVICE_ATTACH_IOMMUFD_PT: u32 = io(19);
    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT` (a device opened by its own node).
    pub const DEVICE_DETACH_IOMMUFD_PT: u32 = io(20);
    /// `IOMMU_DESTROY`, the first of the commands of an iommufd.
    pub const IOMMU_DESTROY: u32 = iommufd(0);
    /// `IOMMU_IOAS_ALLOC` (iommufd).
    pub const IOAS_ALLOC: u32 = iommufd(1);
    /// `IOMMU_IOAS_ALLOW_IOVAS` (iommufd).
    pub const IOAS_ALLOW_IOVAS: u32 = iommufd(2);
    /// `IOMMU_IOAS_COPY` (iommufd).
    pub const IOAS_COPY: u32 = iommufd(3);
    /// `IOMMU_IOAS_IOVA_RANGES` (iommufd).
    pub const IOAS_IOVA_RANGES: u32 = iommufd(4);
    /// `IOMMU_IOAS_MAP` (iommufd).
    pub const IOAS_MAP: u32 = iommufd(5);
    /// `IOMMU_IOAS_UNMAP` (iommufd).
    pub const IOAS_UNMAP: u32 = iommufd(6);
    /// `IOMMU_OPTION` (iommufd).
    pub const IOMMU_OPTION: u32 = iommufd(7);
    /// `IOMMU_VFIO_IOAS` (iommufd).
    pub const IOMMU_VFIO_IOAS: u32 = iommufd(8);
    /// `IOMMU_HWPT_ALLOC` (iommufd).
    pub const HWPT_ALLOC: u32 = iommufd(9);
    /// `IOMMU_GET_HW_INFO` (iommufd).
    pub const GET_HW_INFO: u32 = iommufd(10);
    /// `IOMMU_HWPT_SET_DIRTY_TRACKING` (iommufd).
    pub const HWPT_SET_DIRTY_TRACKING: u32 = iommufd(11);
    /// `IOMMU_HWPT_GET_DIRTY_BITMAP` (iommufd).
    pub const HWPT_GET_DIRTY_BITMAP: u32 = iommufd(12);
    /// `IOMMU_HWPT_INVALIDATE` (iommufd).
    pub const HWPT_INVALIDATE: u32 = iommufd(13);
    /// `IOMMU_FAULT_QUEUE_ALLOC` (iommufd).
    pub const FAULT_QUEUE_ALLOC: u32 = iommufd(14);
    /// `IOMMU_IOAS_MAP_FILE` (iommufd).
    pub const IOAS_MAP_FILE: u32 = iommufd(15);
    /// `IOMMU_VIOMMU_ALLOC` (iommufd).
    pub const VIOMMU_ALLOC: u32 = iommufd(16);
    /// `IOMMU_VDEVICE_ALLOC` (iommufd).
    pub const VDEVICE_ALLOC: u32 = iommufd(17);
    /// `IOMMU_IOAS_CHANGE_PROCESS` (iommufd).
    pub const IOAS_CHANGE_PROCESS: u32 = iommufd(18);
    /// `IOMMU_VEVENTQ_ALLOC` (iommufd).
    pub const VEVENTQ_ALLOC: u32 = iommufd(19);
    /// `IOMMU_HW_QUEUE_ALLOC` (iommufd).
    pub const HW_QUEUE_ALLOC: u32 = iommufd(20);

    /// The command's name as in `vfio.h` and `iommufd.h`, for messages.
    pub fn name(command: u32) -> Option<&'static str> {
        Some(match command {
            GET_API_VERSION => "VFIO_GET_API_VERSION",
            CHECK_EXTENSION => "VFIO_CHECK_EXTENSION",
            SET_IOMMU => "VFIO_SET_IOMMU",
            GROUP_GET_STATUS => "VFIO_GROUP_GET_STATUS",
            GROUP_SET_CONTAINER => "VFIO_GROUP_SET_CONTAINER",
            GROUP_UNSET_CONTAINER => "VFIO_GROUP_UNSET_CONTAINER",
            GROUP_GET_DEVICE_FD => "VFIO_GROUP_GET_DEVICE_FD",
            IOMMU_GET_INFO => "VFIO_IOMMU_GET_INFO",
            IOMMU_MAP_DMA => "VFIO_IOMMU_MAP_DMA",
            IOMMU_UNMAP_DMA => "VFIO_IOMMU_UNMAP_DMA",
            IOMMU_DIRTY_PAGES => "VFIO_IOMMU_DIRTY_PAGES",
            DEVICE_BIND_IOMMUFD => "VFIO_DEVICE_BIND_IOMMUFD",
            DEVICE_ATTACH_IOMMUFD_PT => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            DEVICE_DETACH_IOMMUFD_PT => "VFIO_DEVICE_DETACH_IOMMUFD_PT",
            IOMMU_DESTROY => "IOMMU_DESTROY",
            IOAS_ALLOC => "IOMMU_IOAS_ALLOC",
            IOAS_ALLOW_IOVAS => "IOMMU_IOAS_ALLOW_IOVAS",
            IOAS_COPY => "IOMMU_IOAS_COPY",
            IOAS_IOVA_RANGES => "IOMMU_IOAS_IOVA_RANGES",
            IOAS_MAP => "IOMMU_IOAS_MAP",
            IOAS_UNMAP => "IOMMU_IOAS_UNMAP",
            IOMMU_OPTION => "IOMMU_OPTION",
            IOMMU_VFIO_IOAS => "IOMMU_VFIO_IOAS",
            HWPT_ALLOC => "IOMMU_HWPT_ALLOC",
            GET_HW_INFO => "IOMMU_GET_HW_INFO",
            HWPT_SET_DIRTY_TRACKING => "IOMMU_HWPT_SET_DIRTY_TRACKING",
            HWPT_GET_DIRTY_BITMAP => "IOMMU_HWPT_GET_DIRTY_BITMAP",
            HWPT_INVALIDATE => "IOMMU_HWPT_INVALIDATE",
            FAULT_QUEUE_ALLOC => "IOMMU_FAULT_QUEUE_ALLOC",
            IOAS_MAP_FILE => "IOMMU_IOAS_MAP_FILE",
            VIOMMU_ALLOC => "IOMMU_VIOMMU_ALLOC",
            VDEVICE_ALLOC => "IOMMU_VDEVICE_ALLOC",
            IOAS_CHANGE_PROCESS => "IOMMU_IOAS_CHANGE_PROCESS",
            VEVENTQ_ALLOC => "IOMMU_VEVENTQ_ALLOC",
            HW_QUEUE_ALLOC => "IOMMU_HW_QUEUE_ALLOC",
            _ => return None,
        })
    }

    /// ` (NAME)` for a command that has one.
    pub(in crate::abi) fn in_brackets(command: u32) -> String {
        name(command).map(|name| format!(" ({name})")).unwrap_or_default()
    }
}

const fn io(number: u32) -> u32 {
    (uapi::VFIO_TYPE as u32) << 8 | (uapi::VFIO_BASE + number)
}

const fn iommufd(number: u32) -> u32 {
    (uapi::VFIO_TYPE as u32) << 8 | (0x80 + number)
}

/// `struct vfio_group_status`.
pub(super) mod group_status {
    pub(crate) const SIZE: usize = 8;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const VIABLE: u32 = 1;
    pub(crate) const CONTAINER_SET: u32 = 2;
}

/// `struct vfio_iommu_type1_info` and the flags in it.
pub(super) mod info {
    /// What a caller must pass at least.
    pub(crate) const MINIMUM: usize = 16;
    /// Up to the end of `cap_offset`: what kernels before 6.6 know of the structure.
    pub(crate) const WITHOUT_PAD: usize = 20;
    pub(crate) const SIZE: usize = 24;
    /// Capabilities follow the structure.
    pub(crate) const CAP_OFFSET: u32 = 24;
    pub(crate) const FLAG_PGSIZES: u32 = 1;
    pub(crate) const FLAG_CAPS: u32 = 2;
}

/// `struct vfio_iommu_type1_dma_map`.
pub(super) mod dma_map {
    pub(crate) const SIZE: usize = 32;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const VADDR: usize = 8;
    pub(crate) const IOVA: usize = 16;
    pub(crate) const LENGTH: usize = 24;
}

/// `struct vfio_iommu_type1_dma_unmap`; a bitmap may follow.
pub(super) mod dma_unmap {
    pub(crate) const SIZE: usize = 24;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const IOVA: usize = 8;
    pub(crate) const LENGTH: usize = 16;
}

/// `struct vfio_bitmap`.
pub(super) mod bitmap {
    pub(crate) const SIZE: usize = 24;
    pub(crate) const PAGE_SIZE: usize = 0;
    pub(crate) const BYTES: usize = 8;
    pub(crate) const DATA: usize = 16;
}

/// `struct vfio_iommu_type1_dirty_bitmap`; a `dirty_bitmap_get` may follow.
pub(super) mod dirty_bitmap {
    pub(crate) const SIZE: usize = 8;
    pub(crate) const FLAGS: usize = 4;
}

/// `struct vfio_iommu_type1_dirty_bitmap_get`.
pub(super) mod dirty_bitmap_get {
    pub(crate) const SIZE: usize = 40;
    pub(crate) const IOVA: usize = 0;
    pub(crate) const LENGTH: usize = 8;
    pub(crate) const BITMAP: usize = 16;
}

/// `struct vfio_device_bind_iommufd`, without the token at its end.
pub(super) mod bind_iommufd {
    pub(crate) const SIZE: usize = 16;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const IOMMUFD: usize = 8;
    pub(crate) const DEVICE: usize = 12;
}

/// `struct vfio_device_attach_iommufd_pt`, without the PASID at its end; `..._detach_...` ends before the
/// object.
pub(super) mod attach_iommufd {
    pub(crate) const SIZE: usize = 12;
    pub(crate) const SIZE_TO_DETACH: usize = 8;
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const OBJECT: usize = 8;
}

/// `struct vfio_info_cap_header` and the capabilities that begin with it.
pub(super) mod capability {
    pub(crate) const HEADER: usize = 8;
    pub(crate) const NEXT: usize = 4;
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const IOVA_RANGE: u16 = 1;
    pub(crate) const MIGRATION: u16 = 2;
    pub(crate) const DMA_AVAIL: u16 = 3;
}

macro_rules! same_offsets {
    ($structure:ident: $($field:ident = $offset:expr),* $(,)?) => {
        $(assert!(offset_of!(uapi::$structure, $field) == $offset);)*
    };
}

const _: () = {
    assert!(command::GET_API_VERSION == 0x3b64);
    assert!(command::IOMMU_DIRTY_PAGES == 0x3b75);

    assert!(size_of::<uapi::vfio_group_status>() == group_status::SIZE);
    same_offsets!(vfio_group_status: argsz = 0, flags = group_status::FLAGS);
    assert!(uapi::VFIO_GROUP_FLAGS_VIABLE == group_status::VIABLE);
    assert!(uapi::VFIO_GROUP_FLAGS_CONTAINER_SET == group_status::CONTAINER_SET);

    assert!(size_of::<uapi::vfio_iommu_type1_info>() == info::SIZE);
    same_offsets!(vfio_iommu_type1_info: argsz = 0, flags = 4, iova_pgsizes = 8,
        cap_offset = info::MINIMUM, pad = info::WITHOUT_PAD);
    assert!(uapi::VFIO_IOMMU_INFO_PGSIZES == info::FLAG_PGSIZES);
    assert!(uapi::VFIO_IOMMU_INFO_CAPS == info::FLAG_CAPS);

    assert!(size_of::<uapi::vfio_iommu_type1_dma_map>() == dma_map::SIZE);
    same_offsets!(vfio_iommu_type1_dma_map: argsz = 0, flags = dma_map::FLAGS,
        vaddr = dma_map::VADDR, iova = dma_map::IOVA, size = dma_map::LENGTH);
    assert!(uapi::VFIO_DMA_MAP_FLAG_READ == MapDma::READ);
    assert!(uapi::VFIO_DMA_MAP_FLAG_WRITE == MapDma::WRITE);
    assert!(uapi::VFIO_DMA_MAP_FLAG_VADDR == MapDma::VADDR);

    assert!(size_of::<uapi::vfio_iommu_type1_dma_unmap>() == dma_unmap::SIZE);
    same_offsets!(vfio_iommu_type1_dma_unmap: argsz = 0, flags = dma_unmap::FLAGS,
        iova = dma_unmap::IOVA, size = dma_unmap::LENGTH, data = dma_unmap::SIZE);
    assert!(uapi::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP == UnmapDma::DIRTY_BITMAP);
    assert!(uapi::VFIO_DMA_UNMAP_FLAG_ALL == UnmapDma::ALL);
    assert!(uapi::VFIO_DMA_UNMAP_FLAG_VADDR == UnmapDma::VADDR);

    assert!(size_of::<uapi::vfio_bitmap>() == bitmap::SIZE);
    same_offsets!(vfio_bitmap: pgsize = bitmap::PAGE_SIZE, size = bitmap::BYTES,
        data = bitmap::DATA);

    same_offsets!(vfio_iommu_type1_dirty_bitmap: argsz = 0, flags = dirty_bitmap::FLAGS,
        data = dirty_bitmap::SIZE);
    assert!(uapi::VFIO_IOMMU_DIRTY_PAGES_FLAG_START == DirtyPages::START);
    assert!(uapi::VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP == DirtyPages::STOP);
    assert!(uapi::VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP == DirtyPages::GET_BITMAP);
    assert!(size_of::<uapi::vfio_iommu_type1_dirty_bitmap_get>() == dirty_bitmap_get::SIZE);
    same_offsets!(vfio_iommu_type1_dirty_bitmap_get: iova = dirty_bitmap_get::IOVA,
        size = dirty_bitmap_get::LENGTH, bitmap = dirty_bitmap_get::BITMAP);

    same_offsets!(vfio_device_bind_iommufd: argsz = 0, flags = bind_iommufd::FLAGS,
        iommufd = bind_iommufd::IOMMUFD, out_devid = bind_iommufd::DEVICE,
        token_uuid_ptr = bind_iommufd::SIZE);
    same_offsets!(vfio_device_attach_iommufd_pt: argsz = 0, flags = attach_iommufd::FLAGS,
        pt_id = attach_iommufd::OBJECT, pasid = attach_iommufd::SIZE);
    same_offsets!(vfio_device_detach_iommufd_pt: argsz = 0, flags = attach_iommufd::FLAGS,
        pasid = attach_iommufd::SIZE_TO_DETACH);

    assert!(size_of::<uapi::vfio_info_cap_header>() == capability::HEADER);
    same_offsets!(vfio_info_cap_header: id = 0, version = 2, next = capability::NEXT);
    assert!(uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE == capability::IOVA_RANGE as u32);
    assert!(uapi::VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION == capability::MIGRATION as u32);
    assert!(uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL == capability::DMA_AVAIL as u32);
};
