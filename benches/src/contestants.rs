// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who takes part: the emulator with all its rules, and the maps that one might use instead, which keep
//! books and check nothing.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use vfio_type1::{BusMaster, DmaAccess, Iova};
use vm_memory::{GuestAddress, Iotlb, Permissions};

use crate::RangeMap;
use crate::pages::{Order, PAGE, vaddr};
use crate::scene::{GuestMemory, Scene};

/// The bytes of an access that is translated: a descriptor or a cache line.
const ACCESS: usize = 64;

/// Something that keeps mappings of one page each.
pub trait Contestant {
    /// Its name in the tables.
    const NAME: &'static str;

    /// One without mappings.
    fn empty() -> Self;

    /// Maps a page that is free.
    fn map(&mut self, iova: u64);

    /// Unmaps a page that is mapped.
    fn unmap(&mut self, iova: u64);

    /// The process address of the mapping that holds `iova`; `None` if it is free.
    fn vaddr_at(&self, iova: u64) -> Option<u64>;

    /// Whether a device may read 64 bytes at `iova`. The address they have in the process is found on the
    /// way.
    fn translate(&self, iova: u64) -> bool;
}

/// One with the first `count` pages mapped, in this order.
pub fn filled<C: Contestant>(count: u64, order: Order) -> C {
    let mut contestant = C::empty();
    order.pages(count).into_iter().for_each(|iova| contestant.map(iova));
    contestant
}

/// The address of an access that starts at `iova`, in the mapping `first..=last`.
fn reached(iova: u64, first: u64, last: u64, vaddr: u64) -> bool {
    let inside = iova + (ACCESS as u64 - 1) <= last;
    inside && black_box(vaddr + (iova - first)) != 0
}

/// `vfio-type1`, by its typed door. A NIC does DMA from the first translation on; with `NIC` from the
/// start, so UNMAP has somebody to wait for and something to remember.
#[derive(Debug)]
pub struct Emulator<const NIC: bool = false> {
    scene: Scene,
    nic: OnceCell<BusMaster>,
}

impl<const NIC: bool> Emulator<NIC> {
    fn nic(&self) -> &BusMaster {
        self.nic.get_or_init(|| self.scene.nic(0))
    }
}

impl<const NIC: bool> Contestant for Emulator<NIC> {
    const NAME: &'static str = if NIC { "vfio-type1, NIC" } else { "vfio-type1" };

    fn empty() -> Self {
        let scene = Scene::new(Arc::new(GuestMemory), 1);
        let emulator = Self { scene, nic: OnceCell::new() };
        if NIC {
            emulator.nic();
        }
        emulator
    }

    fn map(&mut self, iova: u64) {
        self.scene.map(iova);
    }

    fn unmap(&mut self, iova: u64) {
        self.scene.unmap(iova);
    }

    fn vaddr_at(&self, iova: u64) -> Option<u64> {
        self.scene.container.mapping_at(Iova(iova)).map(|mapping| mapping.vaddr.0)
    }

    fn translate(&self, iova: u64) -> bool {
        self.nic().check(Iova(iova), ACCESS, DmaAccess::Read).is_ok()
    }
}

/// The standard library's map: first address to last address and process address. With `CHECKED`, a page
/// is mapped only if nothing is there, which EEXIST takes.
#[derive(Debug, Default)]
pub struct BTree<const CHECKED: bool>(BTreeMap<u64, (u64, u64)>);

impl<const CHECKED: bool> BTree<CHECKED> {
    /// The mapping that starts lowest before `end`, or there: first, last and process address.
    fn at_or_below(&self, end: u64) -> Option<(u64, u64, u64)> {
        let (first, (last, vaddr)) = self.0.range(..=end).next_back()?;
        Some((*first, *last, *vaddr))
    }
}

impl<const CHECKED: bool> Contestant for BTree<CHECKED> {
    const NAME: &'static str = if CHECKED { "BTreeMap, checked" } else { "BTreeMap" };

    fn empty() -> Self {
        Self::default()
    }

    fn map(&mut self, iova: u64) {
        let last = iova + (PAGE - 1);
        if CHECKED {
            let overlaps = self.at_or_below(last).is_some_and(|(_, other, _)| other >= iova);
            assert!(!overlaps, "the page is mapped");
        }
        self.0.insert(iova, (last, vaddr(iova)));
    }

    fn unmap(&mut self, iova: u64) {
        self.0.remove(&iova);
    }

    fn vaddr_at(&self, iova: u64) -> Option<u64> {
        let (_, last, vaddr) = self.at_or_below(iova)?;
        (iova <= last).then_some(vaddr)
    }

    fn translate(&self, iova: u64) -> bool {
        let found = self.at_or_below(iova);
        found.is_some_and(|(first, last, vaddr)| reached(iova, first, last, vaddr))
    }
}

impl Contestant for RangeMap {
    const NAME: &'static str = "rangemap";

    fn empty() -> Self {
        Self::new()
    }

    fn map(&mut self, iova: u64) {
        self.insert(iova..=iova + (PAGE - 1), vaddr(iova));
    }

    fn unmap(&mut self, iova: u64) {
        self.remove(iova..=iova + (PAGE - 1));
    }

    fn vaddr_at(&self, iova: u64) -> Option<u64> {
        self.get(&iova).copied()
    }

    fn translate(&self, iova: u64) -> bool {
        let found = self.get_key_value(&iova);
        found.is_some_and(|(range, vaddr)| reached(iova, *range.start(), *range.end(), *vaddr))
    }
}

/// `vm-memory`'s cache of translations, which answers with each piece of an access.
#[derive(Debug, Default)]
pub struct VmMemory(Iotlb);

impl VmMemory {
    fn look_up(&self, iova: u64, length: usize) -> Option<u64> {
        let found = Iotlb::lookup(&self.0, GuestAddress(iova), length, Permissions::Read);
        Some(found.ok()?.next()?.base.0)
    }
}

impl Contestant for VmMemory {
    const NAME: &'static str = "vm-memory Iotlb";

    fn empty() -> Self {
        Self::default()
    }

    fn map(&mut self, iova: u64) {
        let (from, to) = (GuestAddress(iova), GuestAddress(vaddr(iova)));
        let set = self.0.set_mapping(from, to, 4096, Permissions::ReadWrite);
        set.expect("a page can be mapped");
    }

    fn unmap(&mut self, iova: u64) {
        self.0.invalidate_mapping(GuestAddress(iova), 4096);
    }

    fn vaddr_at(&self, iova: u64) -> Option<u64> {
        self.look_up(iova, 1)
    }

    fn translate(&self, iova: u64) -> bool {
        self.look_up(iova, ACCESS).is_some_and(|vaddr| black_box(vaddr) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::{gap, page};

    fn agrees<C: Contestant>() {
        let mut contestant: C = filled(100, Order::Shuffled);
        contestant.map(gap(50));
        contestant.unmap(page(7));
        for number in 0..100 {
            let (live, free) = (page(number), gap(number));
            let here = (number != 7).then_some(vaddr(live));
            assert_eq!(contestant.vaddr_at(live), here, "{}", C::NAME);
            assert_eq!(contestant.translate(live), here.is_some(), "{}", C::NAME);
            assert_eq!(contestant.vaddr_at(free).is_some(), number == 50, "{}", C::NAME);
        }
    }

    /// Who answers wrongly can be as fast as he likes.
    #[test]
    fn all_give_the_same_answers() {
        agrees::<Emulator>();
        agrees::<Emulator<true>>();
        agrees::<BTree<false>>();
        agrees::<BTree<true>>();
        agrees::<RangeMap>();
        agrees::<VmMemory>();
    }
}
