// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a report names the mistakes of a program that no errno told it of, or that it did not look at.

use crate::said::{Said, run};
use crate::tool::compiled;

/// The report on a case of `tests/programs/mistakes.c`.
fn report(case: &str) -> Option<Said> {
    let (program, run) = (compiled("mistakes")?, run("dma-engine")?);
    Some(run.options(["--report"]).program(program, [case]))
}

#[test]
fn a_map_that_failed_and_was_not_looked_at() {
    let Some(said) = report("ignores_a_refusal") else { return };
    let said = said.ok().complains("refused: f1: VFIO_IOMMU_MAP_DMA ");
    let said = said.complains("touches the MSI window 0xfee00000..0xfeefffff of group");
    let said = said.complains("ignored: the program went on, and never mapped that memory");
    // The device that uses it all the same.
    said.complains("fault: 0000:01:00.0 cannot write at 0xfee01000");
}

#[test]
fn mappings_left_at_the_end() {
    let Some(said) = report("leaves_mappings") else { return };
    said.ok().complains("left: 2 mappings, 0x3000 bytes, when the program ended");
    let Some(said) = report("is_killed") else { return };
    said.ends_with(137).complains("left: 1 mapping, 0x1000 bytes, when the program ended");
}

#[test]
fn memory_that_went_before_its_mapping() {
    let Some(said) = report("unmaps_memory_first") else { return };
    let said =
        said.ok().complains("stale: the memory behind 0x100000..0x101fff went while it was mapped");
    said.complains("fault: 0000:01:00.0 cannot write at 0x100000");
}

#[test]
fn memory_that_was_given_back_before_its_mapping() {
    let Some(mut said) = report("gives_memory_back_first") else { return };
    for first in [0x10_0000, 0x20_0000, 0x30_0000, 0x40_0000] {
        let last = first + 0xfff;
        said =
            said.complains(&format!("stale: the memory behind {first:#x}..{last:#x} went while"));
    }
    let said = said.ok().complains("replaced by other pages since");
    assert!(!said.err.contains("unlike"), "{said:#?}");
}

#[test]
fn memory_that_stays_is_not_stale() {
    for case in ["makes_memory_longer", "keeps_its_memory"] {
        let Some(said) = report(case) else { return };
        let said = said.ok();
        assert!(!said.err.contains("stale"), "{said:#?}");
    }
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
