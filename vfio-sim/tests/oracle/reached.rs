// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the generated programs must have met: a generator that rots compares nothing and fails
//! nowhere else.

use crate::side_by_side::pair;

/// Each request, and the answers that it must have had at least once.
const ANSWERS: [(&str, &[&str]); 8] = [
    (
        "MAP_DMA",
        &[
            "Exists",
            "Iommu",
            "IovaWraps",
            "Misaligned",
            "NoAccess",
            "NoPageSize",
            "NoType1/Unset",
            "NotValid",
            "NothingToUpdate",
            "Pin/Fault",
            "Pin/OverMemlock",
            "SizeZero",
            "StillValid",
            "TableFull",
            "TakeOver",
            "TooLargeToTrack",
            "UnknownFlags",
            "UpdateNotExact",
            "VaddrWithAccess",
            "VaddrWraps",
            "ok",
        ],
    ),
    (
        "UNMAP_DMA",
        &[
            "AllWithRange",
            "AlreadyInvalid",
            "Bitmap/BeyondUser",
            "Bitmap/NoPages",
            "Bitmap/TooLarge",
            "Bitmap/TooSmall",
            "Bitmap/TrackingOff",
            "Bitmap/WrongPageSize",
            "BitmapFault",
            "BitmapWithOther",
            "Cuts",
            "EmulatedGroup",
            "MisalignedIova",
            "MisalignedSize",
            "NoType1/Unset",
            "ReachesTop",
            "SizeZero",
            "StillPinned",
            "UnknownFlags",
            "Wraps",
            "ok",
        ],
    ),
    (
        "DIRTY_PAGES",
        &[
            "Bitmap/BeyondUser",
            "Bitmap/NoPages",
            "Bitmap/TooLarge",
            "Bitmap/TooSmall",
            "Bitmap/TrackingOff",
            "Bitmap/WrongPageSize",
            "BitmapFault",
            "Cuts",
            "Misaligned",
            "NoType1/Unset",
            "NotKnown",
            "ReachesTop",
            "SizeZero",
            "TooLargeToTrack",
            "V1",
            "Wraps",
            "ok",
        ],
    ),
    (
        "pin_pages",
        &[
            "NoAccess",
            "NoCallback",
            "NoPages",
            "NotEmulated",
            "NotMapped",
            "Pin/Fault",
            "Pin/NoProcess",
            "Pin/OverMemlock",
            "TooMany",
            "V1",
            "Wraps",
            "ok",
        ],
    ),
    ("dma_read", &["Fault", "NoAccess", "NoProcess", "NotMapped", "ok"]),
    ("dma_write", &["Fault", "NoAccess", "NoProcess", "NotMapped", "ok"]),
    (
        "SET_IOMMU",
        &[
            "Attach/ApertureMisses",
            "Attach/FirmwareOwned",
            "Attach/MsiNotIsolated",
            "Attach/NoDomain",
            "Attach/NoNesting",
            "Attach/NothingLeft",
            "ok",
        ],
    ),
    (
        "SET_CONTAINER",
        &[
            "Refused/Attach/ApertureConflict",
            "Refused/Attach/ApertureMisses",
            "Refused/Attach/FirmwareOwned",
            "Refused/Attach/MsiNotIsolated",
            "Refused/Attach/NoDomain",
            "Refused/Attach/NoNesting",
            "Refused/Attach/NothingLeft",
            "Refused/Attach/ReplayIommu",
            "Refused/Attach/ReplayPin/Fault",
            "Refused/Attach/ReplayPin/OverMemlock",
            "Refused/Attach/ReservedConflict",
            "Refused/Attach/VaddrsInvalid",
            "Refused/DirectRegion",
            "Refused/KernelOwned",
            "Refused/MixedKinds",
            "ok",
        ],
    ),
];

pub(crate) fn check() {
    for (request, answers) in ANSWERS {
        let missing = pair::never_seen(request, answers);
        assert!(missing.is_empty(), "no generated {request} was answered with {missing:?}");
    }
}
