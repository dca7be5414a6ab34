// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which kernel is imitated.
//!
//! A [`Kernel`] is a name and a set of named [`Behaviours`]. The logic of this crate asks for a
//! behaviour, never for a version; this file is the only one that knows which version does what.
//! Spec section 8 lists the changes with their sources. Stable kernels carry backports: the rows
//! are the releases that were recorded, named in each row's comment.

use std::fmt;
use std::str::FromStr;

use crate::addr::Vaddr;
use crate::reserved::MergeRule;

/// A kernel to imitate: a plain value, cheap to copy.
#[derive(Clone, Copy, PartialEq)]
pub struct Kernel {
    name: &'static str,
    behaviours: Behaviours,
}

/// The capability chain of `VFIO_IOMMU_GET_INFO` (spec 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoChain {
    /// No capabilities at all (before 5.4).
    None,
    /// Only the valid IOVA ranges (5.4).
    IovaRanges,
    /// Migration, entries available, IOVA ranges, packed without padding (5.10 to 6.5).
    Packed,
    /// The same, each capability padded to eight bytes, and the header's last four bytes written
    /// (from 6.6).
    Aligned,
}

/// How a kernel keeps devices of one group out of two owners' hands (spec 2.3, 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Up to 5.18: a group's viability is looked at when a device is opened, not before.
    Viability,
    /// From 5.19: `VFIO_GROUP_SET_CONTAINER` claims the group's DMA.
    Claimed,
}

/// What happens to a group with a region of kind direct (spec 2.4, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectRegions {
    /// Up to 5.18: VT-d refuses the group when it is attached to a domain; others allow it.
    VtdRefusesAttach,
    /// 5.19 to 6.5: VT-d refuses the claim of the group's DMA; others allow it.
    VtdRefusesClaim,
    /// From 6.6: every IOMMU driver's group is refused at the claim.
    RefuseClaim,
}

/// What UNMAP does with a range that ends at the last address of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapAtTop {
    /// Before 5.0: refused as wrapping around.
    Refused,
    /// 5.0 to 6.17: accepted, but the search for mappings sees an end of 0 and finds none.
    FindsNothing,
    /// From 6.18.
    Works,
}

/// How much of its structure `VFIO_DEVICE_GET_INFO` writes (`vfio_pci_core.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceInfoSize {
    /// 16 bytes, up to the number of interrupts (before 5.10).
    Short,
    /// 20 bytes, with the offset of the capabilities, if there is room for that (5.10 to 6.5).
    WithCapOffset,
    /// What there is room for, of 24 (from 6.6).
    Room,
}

/// What a kernel does where kernels differ. Each field names a behaviour and says from which
/// release it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviours {
    /// The container keeps a valid IOVA list, checks MAP against it, and checks aperture and
    /// reserved regions on attach. 5.4; also the withdrawn 2018 series. Spec 3.3 to 3.7.
    pub valid_iova_list: bool,
    /// The kind `direct-relaxable` exists and is exempt from the list. 5.3. Without it such a
    /// region is an ordinary direct one. Spec 4.3.
    pub relaxable_regions: bool,
    /// How a group's regions are merged. Changed in 5.4. Spec 4.2.
    pub region_merge: MergeRule,
    /// `reserved_regions` is cut off after one page. Newer kernels. Spec 4.3.
    pub sysfs_one_page: bool,
    /// The number of mappings is limited by `dma_entry_limit` (ENOSPC). 5.1. Spec 5.5.
    pub entry_limit: bool,
    /// UNMAP knows flag ALL, and extension 9 is advertised. 5.12. Spec 6.1.
    pub unmap_all: bool,
    /// MAP and UNMAP know flag VADDR, and extension 10 exists. 5.12. Spec 5.4, 6.3.
    pub update_vaddr: bool,
    /// Ranges that wrap around are EOVERFLOW rather than EINVAL. 6.18. Spec 5.1, 6.1, 7.2.
    pub wrap_is_eoverflow: bool,
    /// The search for mappings in a range that ends at 2^64 - 1 finds them: conflicts on attach,
    /// overlaps on MAP. Before, it sees an end of 0 and finds none. 6.18. Spec 3.3, 3.4, 6.4.
    pub search_reaches_top: bool,
    /// What UNMAP does with a range that ends at 2^64 - 1. 5.0, 6.18. Spec 8, and the recordings of
    /// 5.10.
    pub unmap_at_top: UnmapAtTop,
    /// GET_BITMAP accepts a range that ends at 2^64 - 1. 6.18. Spec 7.2.
    pub bitmap_reaches_top: bool,
    /// UNMAP stops silently at a mapping of another process. Up to 5.19. Spec 6.2.
    pub unmap_stops_at_foreign_mm: bool,
    /// Dirty page tracking exists: DIRTY_PAGES and UNMAP with a bitmap. 5.8. Spec 7.2.
    pub dirty_tracking: bool,
    /// Detaching a group that was not pinned-scope marks everything dirty once. 5.11. Spec 3.7.
    pub detach_marks_dirty: bool,
    /// What GET_INFO appends. Spec 7.1.
    pub info_chain: InfoChain,
    /// Type 6, nesting, is known. Up to 6.12. Spec 1.4.
    pub nesting: bool,
    /// VT-d answers ENODEV rather than EINVAL when it cannot nest. From 5.6 or so to 5.10. Spec 1.4.
    pub vtd_nesting_is_enodev: bool,
    /// The SMMUs answer EPERM instead of making a nesting domain: it is made for a device, and so in use. 6.12 (from
    /// 6.11 or so, to 6.12). Spec 1.4.
    pub smmu_nesting_is_eperm: bool,
    /// VT-d and AMD-Vi share one page table implementation, which answers ERANGE rather than EFAULT
    /// beyond a domain's width. 6.19 or so (`drivers/iommu/generic_pt`).
    pub shared_page_tables: bool,
    /// How groups are owned. Spec 2.3, 2.4.
    pub ownership: Ownership,
    /// How groups with direct regions are refused. Spec 2.4.
    pub direct_regions: DirectRegions,
    /// A file descriptor that is no container is EBADFD rather than EINVAL. 6.2. Spec 2.4.
    pub foreign_fd_is_ebadfd: bool,
    /// SET_CONTAINER looks at the group before it looks at the file descriptor, except that a
    /// negative one is EINVAL at once. Up to 5.18. Spec 2.4.
    pub fd_checked_late: bool,
    /// GET_DEVICE_FD looks the name up before it looks at the container. 6.0 or so. Spec 2.6.
    pub device_name_first: bool,
    /// GET_DEVICE_FD takes blanks and options behind the name of a device of vfio-pci. 5.7. Spec 2.6.
    pub device_options: bool,
    /// `mmap` of a container is ENODEV rather than EINVAL. Between 5.11 and 6.1. Spec 1.1.
    pub mmap_is_enodev: bool,
    /// How much `VFIO_DEVICE_GET_INFO` writes.
    pub device_info_size: DeviceInfoSize,
    /// `VFIO_DEVICE_FEATURE` exists. 5.7.
    pub device_features: bool,
    /// `VFIO_DEVICE_SET_IRQS` takes MSI-X vectors beyond those that are on, if the platform can allocate
    /// them one by one. 6.5.
    pub dynamic_msix: bool,
    /// A failed domain allocation is always EIO. Up to 6.1. Spec 3.1.
    pub domain_alloc_is_eio: bool,
    /// `/dev/iommu` exists; this is the last of its commands. 6.2. Spec 9.
    pub last_iommufd_command: Option<u32>,
    /// `IOMMU_GET_HW_INFO` can be asked for a type of data (6.18), and tells of PASIDs (6.15).
    pub hw_info_by_type: bool,
    /// `/dev/vfio/devices/vfioN` exists: a device is opened without its group. 6.6. Spec 9.
    pub device_nodes: bool,
    /// The first process address that a dirty bitmap may not reach. Depends on the CPU too: these
    /// are the limits that were measured on x86-64. Spec 7.4.
    pub user_limit: Vaddr,
}

/// 6.18 and later, as recorded on Debian 7.2.13. The rows below say how earlier kernels differ.
const NEWEST: Behaviours = Behaviours {
    valid_iova_list: true,
    relaxable_regions: true,
    region_merge: MergeRule::SortedByStart,
    sysfs_one_page: true,
    entry_limit: true,
    unmap_all: true,
    update_vaddr: true,
    wrap_is_eoverflow: true,
    search_reaches_top: true,
    unmap_at_top: UnmapAtTop::Works,
    bitmap_reaches_top: true,
    unmap_stops_at_foreign_mm: false,
    dirty_tracking: true,
    detach_marks_dirty: true,
    info_chain: InfoChain::Aligned,
    nesting: false,
    vtd_nesting_is_enodev: false,
    smmu_nesting_is_eperm: true,
    shared_page_tables: true,
    ownership: Ownership::Claimed,
    direct_regions: DirectRegions::RefuseClaim,
    foreign_fd_is_ebadfd: true,
    fd_checked_late: false,
    device_name_first: true,
    device_options: true,
    mmap_is_enodev: true,
    device_info_size: DeviceInfoSize::Room,
    device_features: true,
    dynamic_msix: true,
    domain_alloc_is_eio: false,
    last_iommufd_command: Some(0x3b94),
    hw_info_by_type: true,
    device_nodes: true,
    user_limit: Vaddr(0x00ff_ffff_ffff_f000),
};

/// Debian 6.12.107: before the overflow series of 6.18 and the removal of nesting in 6.13.
const V6_12: Behaviours = Behaviours {
    wrap_is_eoverflow: false,
    search_reaches_top: false,
    unmap_at_top: UnmapAtTop::FindsNothing,
    bitmap_reaches_top: false,
    nesting: true,
    shared_page_tables: false,
    last_iommufd_command: Some(0x3b8e),
    hw_info_by_type: false,
    ..NEWEST
};

/// Debian 6.1.192: before the aligned structures of 6.6, MSI-X vectors one by one in 6.5 and iommufd in 6.2.
const V6_1: Behaviours = Behaviours {
    smmu_nesting_is_eperm: false,
    sysfs_one_page: false,
    info_chain: InfoChain::Packed,
    direct_regions: DirectRegions::VtdRefusesClaim,
    foreign_fd_is_ebadfd: false,
    device_info_size: DeviceInfoSize::WithCapOffset,
    dynamic_msix: false,
    domain_alloc_is_eio: true,
    last_iommufd_command: None,
    device_nodes: false,
    ..V6_12
};

/// Debian 5.10.262: before DMA ownership (5.19), UNMAP ALL and VADDR (5.12).
const V5_10: Behaviours = Behaviours {
    unmap_all: false,
    update_vaddr: false,
    unmap_stops_at_foreign_mm: true,
    detach_marks_dirty: false,
    vtd_nesting_is_enodev: true,
    ownership: Ownership::Viability,
    direct_regions: DirectRegions::VtdRefusesAttach,
    fd_checked_late: true,
    device_name_first: false,
    mmap_is_enodev: false,
    user_limit: Vaddr(0x7fff_ffff_f000),
    ..V6_1
};

/// The sixth version of *vfio/type1: Add support for valid iova list management* (2018), on top of
/// 4.18: a valid list, but no exemption for the RMRRs of graphics and USB devices.
const SERIES_2018_V6: Behaviours = Behaviours {
    valid_iova_list: true,
    relaxable_regions: false,
    region_merge: MergeRule::InsertionOrder,
    entry_limit: false,
    unmap_at_top: UnmapAtTop::Refused,
    dirty_tracking: false,
    info_chain: InfoChain::IovaRanges,
    vtd_nesting_is_enodev: false,
    device_options: false,
    device_info_size: DeviceInfoSize::Short,
    device_features: false,
    ..V5_10
};

/// 4.19: no valid list, no capabilities.
const V4_19: Behaviours =
    Behaviours { valid_iova_list: false, info_chain: InfoChain::None, ..SERIES_2018_V6 };

impl Kernel {
    /// The series of 2018 that was withdrawn because it excluded the RMRRs of graphics devices.
    pub const SERIES_2018_V6: Self = Self::custom("2018-v6", SERIES_2018_V6);
    /// 4.19, before the valid IOVA list.
    pub const V4_19: Self = Self::custom("4.19", V4_19);
    /// 5.10, recorded on Debian's 5.10.262.
    pub const V5_10: Self = Self::custom("5.10", V5_10);
    /// 6.1, recorded on Debian's 6.1.192.
    pub const V6_1: Self = Self::custom("6.1", V6_1);
    /// 6.12, recorded on Debian's 6.12.107.
    pub const V6_12: Self = Self::custom("6.12", V6_12);
    /// 7.2, recorded on Debian's 7.2.13.
    pub const V7_2: Self = Self::custom("7.2", NEWEST);
    /// 7.3, recorded on 7.3.4.
    pub const V7_3: Self = Self::custom("7.3", NEWEST);

    /// The kernels known by name, oldest first.
    pub const ALL: [Self; 7] = [
        Self::SERIES_2018_V6,
        Self::V4_19,
        Self::V5_10,
        Self::V6_1,
        Self::V6_12,
        Self::V7_2,
        Self::V7_3,
    ];

    /// The newest kernel known.
    pub const NEWEST: Self = Self::V7_3;

    /// A kernel that behaves as `behaviours` says: a known one with a backport, or one to come.
    pub const fn custom(name: &'static str, behaviours: Behaviours) -> Self {
        Self { name, behaviours }
    }

    /// The same kernel on a CPU whose user addresses end elsewhere; see [`Behaviours::user_limit`].
    pub const fn with_user_limit(mut self, limit: Vaddr) -> Self {
        self.behaviours.user_limit = limit;
        self
    }

    /// The name, such as `"6.12"`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What this kernel does where kernels differ.
    pub fn behaviours(&self) -> &Behaviours {
        &self.behaviours
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

/// A kernel that is not in [`Kernel::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kernel \"{given}\"; known are {}{}", known_names(), neighbours(given))]
pub struct UnknownKernel {
    /// The name asked for.
    pub given: String,
}

fn known_names() -> String {
    Kernel::ALL.map(|kernel| kernel.name).join(", ")
}

/// A hint for a release between two known ones: what both do, it does too.
fn neighbours(given: &str) -> String {
    let Some(release) = numbers(given) else { return String::new() };
    let known = Kernel::ALL.iter().filter_map(|kernel| Some((numbers(kernel.name)?, kernel.name)));
    let (older, newer): (Vec<_>, Vec<_>) = known.partition(|(known, _)| *known < release);
    match (older.last(), newer.first()) {
        (Some((_, older)), Some((_, newer))) => {
            format!("; it lies between {older} and {newer}, so try both")
        }
        _ => String::new(),
    }
}

/// The first two numbers of a release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl FromStr for Kernel {
    type Err = UnknownKernel;

    /// Takes a name from [`Kernel::ALL`] or a release as `uname -r` prints it, whose first two
    /// numbers decide: `6.12.107+deb13-amd64` is 6.12.
    fn from_str(given: &str) -> Result<Self, UnknownKernel> {
        let series = release_series(given);
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name == given || Some(kernel.name) == series)
            .ok_or_else(|| UnknownKernel { given: given.to_owned() })
    }
}

/// The `major.minor` that a release begins with, when something else follows it.
fn release_series(release: &str) -> Option<&str> {
    let major = release.find('.')?;
    let minor = release[major + 1..].find(|c: char| !c.is_ascii_digit())?;
    let series = &release[..major + 1 + minor];
    let follows = release[series.len()..].starts_with(['.', '-', '+']);
    follows.then_some(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_releases_are_found() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
        assert_eq!("6.1.0-56-amd64".parse(), Ok(Kernel::V6_1));
        assert_eq!("6.12.107+deb13-arm64".parse(), Ok(Kernel::V6_12));
        assert_eq!("7.3-rc1".parse(), Ok(Kernel::V7_3));
    }

    #[test]
    fn an_unknown_kernel_lists_the_known_ones() {
        let error = "6.6.30".parse::<Kernel>().unwrap_err().to_string();
        assert!(error.ends_with("it lies between 6.1 and 6.12, so try both"), "{error}");
        for given in ["6.6", "6", "", "6.1foo", "6.123.4", "next", "99.9"] {
            let error = given.parse::<Kernel>().unwrap_err().to_string();
            assert!(error.contains("6.12, 7.2, 7.3"), "{error}");
        }
    }
}
