// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator's errors in the oracle's terms: rule, errno, and the plain numbers.

use std::fmt::Debug;

use vfio_sim::oracle::Refusal;
use vfio_type1::abi::{ArgumentError, ContainerIoctlError, GroupIoctlError};
use vfio_type1::{
    AddGroupError, AttachError, BitmapError, DirtyError, DmaRwError, Errno, IovaRange, MapError,
    NoType1, OpenDeviceError, OpenGroupError, PinError, PinPagesError, SetContainerError,
    SetIommuError, UnmapError, UnsetContainerError,
};

/// An error of the emulator that can be held against the oracle's.
pub(crate) trait Rule {
    fn refusal(self) -> Refusal;
}

/// The variant's name is the start of its debug text.
fn variant(error: &impl Debug) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn plain(error: &impl Debug, errno: Errno) -> Refusal {
    Refusal::new(variant(error), errno)
}

fn bounds(range: IovaRange) -> [u64; 2] {
    [range.first().0, range.last().0]
}

impl Rule for NoType1 {
    fn refusal(self) -> Refusal {
        plain(&self, self.errno()).inside("NoType1")
    }
}

impl Rule for BitmapError {
    fn refusal(self) -> Refusal {
        plain(&self, self.errno()).inside("Bitmap")
    }
}

impl Rule for PinError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::Fault(fault) => plain.with([fault.at.0]),
            Self::OverMemlock(over) => plain.with([over.limit]),
            Self::NoProcess | Self::Injected { .. } => plain,
        }
    }
}

impl Rule for MapError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::NoType1(error) => error.refusal(),
            Self::Misaligned { page, .. } => plain.with([page.bytes()]),
            Self::StillValid { iova } => plain.with(bounds(iova)),
            Self::UpdateNotExact { found, .. } => plain.with(bounds(found)),
            Self::TakeOver(over) => plain.with([over.limit]),
            Self::Exists { existing, .. } => plain.with(bounds(existing.iova)),
            Self::TableFull { mappings } => plain.with([mappings as u64]),
            Self::Pin { error, .. } => error.refusal().inside("Pin"),
            Self::TooLargeToTrack { pages } => plain.with([pages]),
            _ => plain,
        }
    }
}

impl Rule for UnmapError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::NoType1(error) => error.refusal(),
            Self::Bitmap(error) => error.refusal(),
            Self::MisalignedIova { page, .. } | Self::MisalignedSize { page, .. } => {
                plain.with([page.bytes()])
            }
            Self::Cuts { mapping, at, .. } => plain.with(bounds(mapping)).with([at.0]),
            Self::AlreadyInvalid { mapping } => plain.with(bounds(mapping)),
            Self::BitmapFault { mapping, fault, removed } => {
                plain.with(bounds(mapping)).with([fault.at.0, removed])
            }
            Self::StillPinned { mapping, removed, .. } => {
                plain.with(bounds(mapping)).with([removed])
            }
            _ => plain,
        }
    }
}

impl Rule for DirtyError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::NoType1(error) => error.refusal(),
            Self::Bitmap(error) => error.refusal(),
            Self::TooLargeToTrack { mapping, pages } => plain.with(bounds(mapping)).with([pages]),
            Self::Misaligned { page, .. } => plain.with([page.bytes()]),
            Self::Cuts { mapping, at, .. } => plain.with(bounds(mapping)).with([at.0]),
            Self::BitmapFault { mapping, fault } => plain.with(bounds(mapping)).with([fault.at.0]),
            _ => plain,
        }
    }
}

impl Rule for AttachError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::VaddrsInvalid { count } => plain.with([count]),
            Self::ApertureMisses { bounds: range, .. } => plain.with(bounds(range)),
            Self::ApertureConflict { mapping, .. } | Self::ReplayIommu { mapping, .. } => {
                plain.with(bounds(mapping))
            }
            Self::ReservedConflict { culprit, mapping } => {
                let region = culprit.region;
                plain.with([region.first.0, region.last.0]).with(bounds(mapping))
            }
            Self::ReplayPin { mapping, error, .. } => {
                let inner = error.refusal().inside("ReplayPin");
                Refusal::new(inner.rule, plain.errno).with(bounds(mapping))
            }
            _ => plain,
        }
    }
}

impl Rule for SetIommuError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::Attach { error, .. } => error.refusal().inside("Attach"),
            _ => plain,
        }
    }
}

impl Rule for AddGroupError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::Attach { error, .. } => error.refusal().inside("Attach"),
            _ => plain,
        }
    }
}

impl Rule for SetContainerError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::Refused(error) => error.refusal().inside("Refused"),
            _ => plain,
        }
    }
}

impl Rule for UnsetContainerError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::DevicesOpen { count, .. } => plain.with([u64::from(count)]),
            Self::NotSet { .. } => plain,
        }
    }
}

impl Rule for OpenGroupError {
    fn refusal(self) -> Refusal {
        plain(&self, self.errno())
    }
}

impl Rule for OpenDeviceError {
    fn refusal(self) -> Refusal {
        plain(&self, self.errno())
    }
}

impl Rule for PinPagesError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::TooMany { pages } => plain.with([pages]),
            Self::VaddrsInvalid { count } => plain.with([count]),
            Self::NotMapped { iova } | Self::NoAccess { iova, .. } => plain.with([iova.0]),
            Self::Pin { iova, error } => {
                let inner = error.refusal().inside("Pin");
                Refusal::new(inner.rule, plain.errno).with([iova.0])
            }
            _ => plain,
        }
    }
}

impl Rule for DmaRwError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::VaddrsInvalid { count } => plain.with([count]),
            Self::NotMapped { iova }
            | Self::NoAccess { iova, .. }
            | Self::NoProcess { iova }
            | Self::Fault { iova, .. } => plain.with([iova.0]),
            _ => plain,
        }
    }
}

impl Rule for ArgumentError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno()).inside("Argument");
        match self {
            Self::Fault(fault) => plain.with([fault.at.0]),
            Self::TooShort { argsz, minimum } => plain.with([u64::from(argsz), minimum as u64]),
        }
    }
}

impl Rule for ContainerIoctlError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        let outer = variant(&self);
        match self {
            Self::NoType1(error)
            | Self::Map(MapError::NoType1(error))
            | Self::Unmap(UnmapError::NoType1(error))
            | Self::Dirty(DirtyError::NoType1(error)) => error.refusal(),
            Self::UnknownCommand { .. } => plain,
            Self::Argument(error) => error.refusal(),
            Self::SetIommu(error) => error.refusal().inside(&outer),
            Self::Map(error) => error.refusal().inside(&outer),
            Self::Unmap(error) => error.refusal().inside(&outer),
            Self::UnmapResult { unmapped, error } => {
                let fault = error.refusal().numbers;
                plain.with([unmapped]).with(fault)
            }
            Self::Dirty(error) => error.refusal().inside(&outer),
            Self::NoMemory(_) => plain,
        }
    }
}

impl Rule for GroupIoctlError {
    fn refusal(self) -> Refusal {
        let plain = plain(&self, self.errno());
        match self {
            Self::Argument(error) => error.refusal(),
            Self::SetContainer(error) => error.refusal(),
            Self::UnsetContainer(error) => error.refusal(),
            Self::OpenDevice(error) => error.refusal(),
            _ => plain,
        }
    }
}
