// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a report names the mistakes of a program that no errno told it of, or that it did not look at.

use crate::said::{Said, run};
use crate::tool::compiled;

/// How programs map: by a type1 container, by its calls on an iommufd, by iommufd's own.
const INTERFACES: [&str; 3] = ["type1", "compat", "iommufd"];

/// The report on a case of `tests/programs/mistakes.c`.
fn report(case: &str, interface: &str) -> Option<Said> {
    let (program, run) = (compiled("mistakes")?, run("dma-engine")?);
    let said = run.options(["--report"]).program(program, [case, interface]);
    assert!(!said.err.contains("unlike: "), "{said:#?}");
    Some(said)
}

#[test]
fn a_map_that_failed_and_was_not_looked_at() {
    let ioas_map =
        "IOMMU_IOAS_MAP {size 0x28, flags 0x7, ioas_id 0x1, iova 0xfee01000, length 0x1000";
    let maps = [
        "VFIO_IOMMU_MAP_DMA {argsz 0x20, flags 0x3, iova 0xfee01000",
        "VFIO_IOMMU_MAP_DMA ",
        ioas_map,
    ];
    for (interface, map) in INTERFACES.into_iter().zip(maps) {
        let Some(said) = report("ignores_a_refusal", interface) else { return };
        let said = said
            .ok()
            .complains("mapped 0x1000 bytes in 1 MAP, 1 UNMAP; at most 1 mapping at a time");
        let said = said.complains(&format!("refused: f1: {map}"));
        let said = said.complains("the MSI window 0xfee00000..0xfeefffff of group");
        let said = said.complains("ignored: the program went on, and never mapped that memory");
        // The device that uses it all the same.
        said.complains("fault: 0000:01:00.0 cannot write at 0xfee01000");
    }
}

#[test]
fn a_map_that_failed_and_was_made_good() {
    for interface in INTERFACES {
        let Some(said) = report("heeds_a_refusal", interface) else { return };
        let said = said
            .ok()
            .complains("mapped 0x2000 bytes in 2 MAPs, 1 UNMAP; at most 2 mappings at a time");
        let said = said.complains("refused: f1: ");
        assert!(!said.err.contains("ignored"), "{said:#?}");
    }
}

#[test]
fn a_map_that_failed_in_one_address_space_of_two() {
    let Some(said) = report("ignores_a_refusal_of_one_address_space", "iommufd") else { return };
    let said =
        said.ok().complains("mapped 0x2000 bytes in 2 MAPs, 1 UNMAP; at most 1 mapping at a time");
    said.complains("ignored: ").complains("left: 1 mapping, 0x1000 bytes");
}

#[test]
fn mappings_left_at_the_end() {
    for interface in INTERFACES {
        let Some(said) = report("leaves_mappings", interface) else { return };
        said.ok().complains("left: 2 mappings, 0x3000 bytes, when the program ended");
        let Some(said) = report("is_killed", interface) else { return };
        said.ends_with(137).complains("left: 1 mapping, 0x1000 bytes, when the program ended");
    }
}

#[test]
fn memory_that_went_before_its_mapping() {
    for interface in INTERFACES {
        let Some(said) = report("unmaps_memory_first", interface) else { return };
        let stale = "stale: the memory behind 0x100000..0x101fff went while it was mapped";
        said.ok().complains(stale).complains("fault: 0000:01:00.0 cannot write at 0x100000");
    }
}

#[test]
fn memory_that_was_given_back_before_its_mapping() {
    for interface in INTERFACES {
        let Some(mut said) = report("gives_memory_back_first", interface) else { return };
        for first in [0x10_0000, 0x20_0000, 0x30_0000, 0x40_0000] {
            let last = first + 0xfff;
            let stale = format!("stale: the memory behind {first:#x}..{last:#x} went while");
            said = said.complains(&stale);
        }
        let said = said.ok().complains("replaced by other pages since");
        assert!(!said.err.contains("unlike"), "{said:#?}");
    }
}

#[test]
fn memory_that_stays_is_not_stale() {
    for interface in INTERFACES {
        for case in ["makes_memory_longer", "keeps_its_memory"] {
            let Some(said) = report(case, interface) else { return };
            let said = said.ok();
            assert!(!said.err.contains("stale"), "{said:#?}");
        }
    }
}

#[test]
fn an_address_space_that_is_called_by_two_names_is_counted_once() {
    let Some(said) = report("mixes_calls", "compat") else { return };
    let said =
        said.ok().complains("mapped 0x2000 bytes in 2 MAPs, 1 UNMAP; at most 2 mappings at a time");
    said.complains("left: 1 mapping, 0x1000 bytes");
}

#[test]
fn programs_that_use_no_vfio() {
    let Some(run) = run("dma-engine") else { return };
    run.options(["--report"])
        .program("true", [""; 0])
        .ok()
        .says_one_line()
        .complains("opened no file of VFIO's");
}
