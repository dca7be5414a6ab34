// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program on `vfio-ioctls` maps memory, has a device copy it, takes interrupts and leaves nothing
//! behind, whoever runs it and whether or not BARs may be mapped.

use crate::said::{Said, run};
use crate::tool::{ADDRESS, vfio_client};

#[track_caller]
fn drives_the_engine(said: Said) -> Said {
    let said = said.ok().prints("copy from 0x100000: done, interrupt 0\n");
    said.prints("copy from 0x40000000: fault at 0x40000000, interrupt 1\n").prints("closed\n")
}

#[test]
fn it_drives_a_device() {
    let Some(run) = run("dma-engine") else { return };
    let said = drives_the_engine(run.program(vfio_client(), [ADDRESS]));
    assert_eq!(said.err, "");
}

#[test]
fn bars_need_not_be_mapped() {
    let Some(run) = run("dma-engine") else { return };
    drives_the_engine(run.options(["--no-mmap"]).program(vfio_client(), [ADDRESS]));
}

#[test]
fn an_ordinary_user_may_run_it() {
    let Some(run) = run("dma-engine") else { return };
    let everybodys = crate::tool::for_everybody();
    drives_the_engine(
        run.by_an_ordinary_user().program(everybodys.with_file_name("vfio-client"), [ADDRESS]),
    );
}

#[test]
fn its_report_has_nothing_left_over() {
    let Some(run) = run("dma-engine") else { return };
    let said = drives_the_engine(run.options(["--report"]).program(vfio_client(), [ADDRESS]));
    let said =
        said.complains("mapped 0x200000 bytes in 1 MAP, 1 UNMAP; at most 1 mapping at a time\n");
    // The two accesses that it tries are told of, and nothing else.
    let said = said.complains("cannot read at 0x40000000: nothing was ever mapped there\n");
    let said = said
        .complains("cannot read at 0x100000: 0x100000..0x2fffff was unmapped by the last call\n");
    assert_eq!(said.err.lines().count(), 4, "{said:#?}");
}
