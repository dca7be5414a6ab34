// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An IOTLB: the translations that a device has used last, where its threads find them without a lock.
//!
//! A translation is kept with the generation of the device's bus, which changes when something is
//! removed: it is good while the generation is the same.

use crate::addr::Iova;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::translation::{Translation, Words};
use crate::version::Version;

/// How many translations are kept: queues, descriptors, and a ring of buffers.
const SLOTS: usize = if cfg!(loom) { 1 } else { 64 };

/// An address belongs to the slot of its page of 4 KiB, so neighbours are in different ones.
const PAGE_SHIFT: u32 = 12;

/// A translation in each slot, or none.
#[derive(Debug)]
pub(crate) struct Iotlb {
    slots: [Slot; SLOTS],
}

/// A cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    version: Version,
    generation: AtomicU64,
    words: Words,
    /// The page that was asked for last and not found.
    missed: AtomicU64,
}

impl Default for Iotlb {
    fn default() -> Self {
        let slot = |_| Slot {
            version: Version::new(),
            generation: AtomicU64::new(0),
            words: Words::empty(),
            missed: AtomicU64::new(u64::MAX),
        };
        Self { slots: std::array::from_fn(slot) }
    }
}

impl Slot {
    #[inline(never)]
    fn keep(&self, translation: &Translation, generation: u64) {
        self.version.try_write(|| {
            self.generation.store(generation, Ordering::Relaxed);
            self.words.set(translation);
        });
    }
}

impl Iotlb {
    /// The translation of `iova`, if one is kept that is of this generation.
    #[inline]
    pub(crate) fn find(&self, iova: Iova, generation: u64) -> Option<Translation> {
        let slot = self.slot(iova);
        slot.version.read(|| {
            let same = slot.generation.load(Ordering::Relaxed) == generation;
            if same { slot.words.translation(iova) } else { None }
        })?
    }

    /// Keeps the translation of `iova`, in the place of an older one, when it is asked for again: who asks
    /// for something else each time has no use for it, and should not pay.
    #[inline]
    pub(crate) fn keep(&self, iova: Iova, translation: &Translation, generation: u64) {
        let slot = self.slot(iova);
        let page = iova.0 >> PAGE_SHIFT;
        if slot.missed.load(Ordering::Relaxed) == page {
            slot.keep(translation, generation);
        } else {
            slot.missed.store(page, Ordering::Relaxed);
        }
    }

    #[inline]
    fn slot(&self, iova: Iova) -> &Slot {
        let page = (iova.0 >> PAGE_SHIFT) as usize;
        // Buffers at large powers of two must not share a slot.
        &self.slots[(page ^ page >> 9) % SLOTS]
    }
}
