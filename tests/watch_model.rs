// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the watch finds what an obvious model finds, neither more nor less, in whatever order a
//! program maps, unmaps, gives memory away and lets a device access it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{RAM, group, msi, vtd};
use proptest::prelude::*;
use vfio_type1::{
    Access, FaultCause, GroupId, Iova, Kernel, MapDma, Mistake, Process, UnmapDma, Vaddr,
    VaddrRange, Vfio, extension,
};

/// Pages of I/O virtual addresses, and of memory.
const PAGES: usize = 8;
const PAGE: u64 = 0x1000;

#[derive(Clone, Debug)]
enum Step {
    Map { iova: usize, memory: usize, pages: usize },
    Unmap { iova: usize, pages: usize },
    Change { memory: usize, pages: usize, how: usize },
    Access { iova: usize, pages: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let part = || (0..PAGES).prop_flat_map(|first| (Just(first), 1..=PAGES - first));
    let map = (part(), 0..PAGES).prop_map(|((iova, pages), memory)| {
        let (memory, pages) = (memory, pages.min(PAGES - memory));
        Step::Map { iova, memory, pages }
    });
    let unmap = part().prop_map(|(iova, pages)| Step::Unmap { iova, pages });
    let change =
        (part(), 0..3_usize).prop_map(|((memory, pages), how)| Step::Change { memory, pages, how });
    let access = part().prop_map(|(iova, pages)| Step::Access { iova, pages });
    prop::collection::vec(prop_oneof![3 => map, 1 => unmap, 2 => change, 4 => access], 1..60)
}

/// A page that is mapped.
#[derive(Clone, Copy)]
struct Mapped {
    /// The first page of its mapping, and how many there are.
    mapping: (usize, usize),
    memory: usize,
    /// What the memory's version was.
    version: u64,
}

/// A page of the model: what is mapped, and for which memory a MAP was refused.
#[derive(Clone, Copy, Default)]
struct Page {
    mapped: Option<Mapped>,
    refused: Option<usize>,
}

/// What an access finds: stale mappings and older ones by their first pages, and the page that stops
/// it, if its MAP was refused.
#[derive(Debug, Default, PartialEq)]
struct Found {
    stale: Vec<usize>,
    older: Vec<usize>,
    refused: Option<usize>,
}

#[derive(Default)]
struct Model {
    pages: [Page; PAGES],
    versions: [u64; PAGES],
}

impl Model {
    fn map(&mut self, iova: usize, memory: usize, count: usize) -> bool {
        let pages = iova..iova + count;
        if pages.clone().any(|page| self.pages[page].mapped.is_some()) {
            for page in pages {
                self.pages[page].refused = Some(memory + page - iova);
            }
            return false;
        }
        // The same memory has a place now.
        let placed = memory..memory + count;
        for page in &mut self.pages {
            page.refused = page.refused.filter(|refused| !placed.contains(refused));
        }
        for page in pages {
            let memory = memory + page - iova;
            let version = self.versions[memory];
            let mapped = Some(Mapped { mapping: (iova, count), memory, version });
            self.pages[page] = Page { mapped, refused: None };
        }
        true
    }

    fn unmap(&mut self, iova: usize, count: usize) -> bool {
        let pages = iova..iova + count;
        let cut = |page: &Page| {
            let Some(Mapped { mapping: (first, size), .. }) = page.mapped else { return false };
            first < iova || first + size > iova + count
        };
        if self.pages[pages.clone()].iter().any(cut) {
            return false;
        }
        self.pages[pages].fill(Page::default());
        true
    }

    fn access(&self, iova: usize, count: usize) -> Found {
        let mut found = Found::default();
        for page in iova..iova + count {
            let Page { mapped, refused } = self.pages[page];
            let Some(mapped) = mapped else {
                found.refused = refused.map(|_| page);
                break;
            };
            if self.versions[mapped.memory] != mapped.version {
                found.stale.push(mapped.mapping.0);
            }
            if refused.is_some_and(|refused| refused != mapped.memory) {
                found.older.push(mapped.mapping.0);
            }
        }
        found.stale.dedup();
        found.older.dedup();
        found
    }
}

/// What the watch found.
fn found(vfio: &Vfio) -> Found {
    let mut found = Found::default();
    let page_of = |iova: Iova| usize::try_from(iova.0 / PAGE).unwrap();
    for finding in vfio.take_findings().kept {
        match finding.mistake {
            Mistake::StaleMapping { mapping, .. } => found.stale.push(page_of(mapping.first())),
            Mistake::ReachedOlderMapping { mapping, .. } => {
                found.older.push(page_of(mapping.first()));
            }
            Mistake::UsedAfterRefusal { iova, .. } => found.refused = Some(page_of(iova)),
            other => panic!("{other}"),
        }
    }
    found
}

fn at(page: usize) -> u64 {
    page as u64 * PAGE
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_watch_finds_what_the_model_finds(steps in steps()) {
        let vfio = Vfio::new(Kernel::V7_3, [group(&vtd(39), 1, vec![msi()])]).unwrap();
        vfio.set_watch(true);
        let memory = common::memory();
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let container = vfio.open_container();
        let group = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
        group.set_container(&container, &process).unwrap();
        container.set_iommu(&process, extension::TYPE1V2).unwrap();
        let nic = vfio.bus_master("0000:00:01.0").unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Map { iova, memory, pages } => {
                    let vaddr = RAM + at(memory);
                    let request = MapDma::new(at(iova), vaddr, at(pages), Access::ReadWrite);
                    let went = container.map(&process, &request).is_ok();
                    prop_assert_eq!(went, model.map(iova, memory, pages));
                }
                Step::Unmap { iova, pages } => {
                    let request = UnmapDma::new(at(iova), at(pages));
                    let went = container.unmap(&process, &request).is_ok();
                    prop_assert_eq!(went, model.unmap(iova, pages));
                }
                Step::Change { memory: first, pages, how } => {
                    let range = VaddrRange::from_size(Vaddr(RAM + at(first)), at(pages)).unwrap();
                    match how {
                        0 => memory.free(range),
                        1 => memory.replace(range).unwrap(),
                        _ => {
                            memory.remove(range).unwrap();
                            memory.add(range, true).unwrap();
                        }
                    }
                    model.versions[first..first + pages].iter_mut().for_each(|version| *version += 1);
                }
                Step::Access { iova, pages } => {
                    let mut bytes = vec![0; pages * 4096];
                    let cause = nic.read(Iova(at(iova)), &mut bytes).err().map(|fault| fault.cause);
                    let expected = model.access(iova, pages);
                    let named = matches!(cause, Some(FaultCause::MapRefused(_)));
                    prop_assert_eq!(named, expected.refused.is_some());
                    prop_assert_eq!(found(&vfio), expected);
                }
            }
        }
    }
}
