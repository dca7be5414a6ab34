// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fewest calls that are still answered differently (delta debugging).
//!
//! What a kernel answers to a call depends on the calls before it, so each attempt is recorded anew.

use crate::trace::{Recorded, Trace};

/// Takes calls out of `script` for as long as the rest is still answered differently.
///
/// `first_difference` records a script and replays it: the place of the first call that is answered
/// differently, counted from 0, or `None`. The result has no call that could be left out alone. `None` if
/// nothing differs to begin with.
pub fn shrink<E>(
    script: &Trace,
    mut first_difference: impl FnMut(&Trace) -> Result<Option<usize>, E>,
) -> Result<Option<Trace>, E> {
    // What follows the first difference has no part in it.
    let mut attempt = |calls: &[Recorded]| -> Result<Option<Vec<Recorded>>, E> {
        let at = first_difference(&script.with_calls(calls.to_vec()))?;
        Ok(at.map(|at| calls.iter().take(at.saturating_add(1)).cloned().collect()))
    };
    let Some(mut calls) = attempt(&script.calls)? else { return Ok(None) };
    let mut piece = calls.len() / 2;
    while piece > 0 {
        let before = calls.len();
        let mut end = calls.len();
        // From the end, since what comes later tends to need what came before.
        while end > 0 {
            let start = end.saturating_sub(piece);
            let rest = [&calls[..start], &calls[end..]].concat();
            if let Some(fewer) = attempt(&rest)? {
                calls = fewer;
            }
            end = start.min(calls.len());
        }
        // One call may be needed only by another that has gone since.
        if piece > 1 || calls.len() == before {
            piece /= 2;
        }
    }
    Ok(Some(script.with_calls(calls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::recorded_on_emulator;
    use crate::replay::replay;
    use crate::trace::Call;
    use vfio_type1::Kernel;

    fn script(calls: &str) -> Trace {
        let header = "# memory rw 100000000000 10000\n# kernel 6.12\n\
            # iommu vtd aperture 0 ffffffffff pgsizes 1000 coherent 0 isolated-msi 1\n\
            # group 1: 0000:00:03.0\n";
        Trace::parse_script("test", &format!("{header}{calls}")).unwrap()
    }

    /// A kernel of another version in the part of the real one: CHECK_EXTENSION 6 differs.
    fn against_7_2(script: &Trace) -> Result<Option<usize>, String> {
        let recording = recorded_on_emulator(script, Kernel::V7_2);
        let outcome = replay(&recording, Kernel::V6_12).map_err(|error| error.to_string())?;
        let Some(first) = outcome.differences.first() else { return Ok(None) };
        Ok(recording.calls.iter().position(|recorded| recorded.line == first.line))
    }

    #[test]
    fn only_the_calls_that_matter_are_left() {
        let mut calls = "container a\ncontainer c\ngroup g 0000:00:03.0\n".to_owned();
        calls += &"ioctlv a 3b65 1\nioctlv c 3b65 3\nsysfs 0000:00:03.0\n".repeat(20);
        calls += "ioctlv c 3b65 6\nclose g\nioctlv a 3b65 6\n";
        let shrunk = shrink(&script(&calls), against_7_2).unwrap().unwrap();
        let [open, ask] = shrunk.calls.as_slice() else { panic!("{:?}", shrunk.calls) };
        assert!(matches!(open.call, Call::OpenContainer(_)));
        assert!(matches!(ask.call, Call::IoctlValue(_, 0x3b65, 6)));
    }

    #[test]
    fn where_nothing_differs_there_is_nothing_to_shrink() {
        assert!(shrink(&script("container c\nioctlv c 3b65 3\n"), against_7_2).unwrap().is_none());
    }
}
