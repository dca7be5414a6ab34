// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happened last to each address, as far as it is remembered.

use std::collections::VecDeque;

use crate::addr::Address;
use crate::range::AddrRange;

/// What happened last to each address: at most `LIMIT` ranges, the oldest of which are forgotten.
#[derive(Debug)]
pub(crate) struct Latest<A: Address, T, const LIMIT: usize> {
    /// Oldest first; they do not overlap.
    entries: VecDeque<(AddrRange<A>, T)>,
}

impl<A: Address, T, const LIMIT: usize> Default for Latest<A, T, LIMIT> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<A: Address, T: Clone, const LIMIT: usize> Latest<A, T, LIMIT> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes what happened to `range`, in the place of what happened there before.
    pub(crate) fn note(&mut self, range: AddrRange<A>, what: T) {
        self.clear(&range);
        self.entries.push_back((range, what));
        self.forget_oldest();
    }

    /// Forgets what happened to `range`, and nothing else.
    pub(crate) fn clear(&mut self, range: &AddrRange<A>) {
        let (mut kept, mut split) = (0, None);
        self.entries.retain_mut(|(known, what)| {
            if known.overlaps(range) {
                let mut rest = known.without(range);
                let Some(first) = rest.next() else { return false };
                *known = first;
                if let Some(second) = rest.next() {
                    // Only one range can reach out on both sides, as they do not overlap.
                    split = Some((kept + 1, (second, what.clone())));
                }
            }
            kept += 1;
            true
        });
        if let Some((at, second)) = split {
            self.entries.insert(at, second);
            self.forget_oldest();
        }
    }

    /// The ranges, newest first, and what happened to them.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &(AddrRange<A>, T)> {
        self.entries.iter().rev()
    }

    fn forget_oldest(&mut self) {
        while self.entries.len() > LIMIT {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Iova;
    use crate::range::IovaRange;
    use proptest::prelude::*;

    const SMALL: usize = 16;
    const LIMIT: usize = 64;

    proptest! {
        /// Against a model that keeps a note for each address.
        #[test]
        fn each_address_has_its_last_note(
            notes in prop::collection::vec((0..SMALL, 0..6_usize, any::<bool>()), 0..40),
        ) {
            let mut latest = Latest::<Iova, usize, LIMIT>::default();
            let mut model = [None; SMALL];
            for (number, (first, span, clears)) in notes.into_iter().enumerate() {
                let last = (first + span).min(SMALL - 1);
                let range = IovaRange::new(Iova(first as u64), Iova(last as u64)).unwrap();
                match clears {
                    true => latest.clear(&range),
                    false => latest.note(range, number),
                }
                model[first..=last].fill((!clears).then_some(number));
                for (address, expected) in model.iter().enumerate() {
                    let at = Iova(address as u64);
                    let mut found = latest.newest_first().filter(|(range, _)| range.contains(at));
                    prop_assert_eq!(found.next().map(|(_, number)| *number), *expected);
                    prop_assert!(found.next().is_none());
                }
            }
            let order: Vec<usize> = latest.newest_first().map(|(_, number)| *number).collect();
            prop_assert!(order.is_sorted_by(|newer, older| newer >= older));
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut latest = Latest::<Iova, u64, 4>::default();
        let one = |at| IovaRange::new(Iova(at), Iova(at)).unwrap();
        (0..6).for_each(|at| latest.note(one(2 * at), at));
        let kept: Vec<u64> = latest.newest_first().map(|(_, at)| *at).collect();
        assert_eq!(kept, [5, 4, 3, 2]);
        // A cut makes two of one, which is one too many.
        latest.note(IovaRange::new(Iova(20), Iova(30)).unwrap(), 6);
        latest.clear(&one(25));
        let kept: Vec<u64> = latest.newest_first().map(|(_, at)| *at).collect();
        assert_eq!(kept, [6, 6, 5, 4]);
    }
}
