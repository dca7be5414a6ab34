// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a container ends: whether mappings that went with its last group were forgotten by a program
//! that goes on, or left over by one that was closing.
//!
//! The order of closing tells: a container that is closed first, or right after its last group, is
//! done. The kernel does the same in both cases.

use crate::host::GroupId;
use crate::watch::{LiveMappings, Mistake, Watch};

/// What a container knows of its end.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// No descriptor of the container is open any more.
    closed: bool,
    /// What went with the last group while one was, and in which call.
    vanished: Option<Vanished>,
}

#[derive(Clone, Copy, Debug)]
struct Vanished {
    group: GroupId,
    live: LiveMappings,
    call: u64,
}

impl Ending {
    /// The last group takes mappings along, in call number `call`.
    pub(crate) fn lose(&mut self, group: GroupId, live: LiveMappings, call: u64, watch: &Watch) {
        if self.closed {
            watch.report(Mistake::Leaked { group, live });
            return;
        }
        self.vanished = Some(Vanished { group, live, call });
        watch.report(Mistake::Vanished { group, live });
    }

    /// The last descriptor is closed, after `calls` calls. If none came since the last group left,
    /// nobody missed the mappings.
    pub(crate) fn close(&mut self, calls: u64, watch: &Watch) {
        self.closed = true;
        if let Some(Vanished { group, live, .. }) = self.vanished.take_if(|lost| lost.call == calls)
        {
            let leaked = Mistake::Leaked { group, live };
            watch.reclassify(&Mistake::Vanished { group, live }, leaked);
        }
    }
}
