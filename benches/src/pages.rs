// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where pages are mapped: 4 KiB each, 8 KiB apart, from 4 GiB up. So there is a free page behind
//! each one, and nobody can make one mapping of two.

/// The size of a mapping, in bytes.
pub const PAGE: u64 = 4096;

/// The numbers of live mappings to measure at. The last is the default of `dma_entry_limit`.
pub const LIVE: [u64; 3] = [1, 1_000, FULL];

/// As many mappings as a container takes.
pub const FULL: u64 = 65_535;

/// The I/O virtual address of page `number`.
pub fn page(number: u64) -> u64 {
    (1 << 32) + 2 * PAGE * number
}

/// The address of the free page behind page `number`.
pub fn gap(number: u64) -> u64 {
    page(number) + PAGE
}

/// The process address that a page stands for. They descend where the others ascend: even neighbours
/// do not continue each other.
pub fn vaddr(iova: u64) -> u64 {
    0x7f00_0000_0000 - iova
}

/// In which order pages are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the lowest address up.
    Ascending,
    /// From the highest address down.
    Descending,
    /// As chance will have it, always the same.
    Shuffled,
}

impl Order {
    /// The pages of numbers below `count`, in this order.
    pub fn pages(self, count: u64) -> Vec<u64> {
        let mut pages: Vec<u64> = (0..count).map(page).collect();
        match self {
            Self::Ascending => {}
            Self::Descending => pages.reverse(),
            Self::Shuffled => {
                let mut chance = Chance::new(1);
                for at in (1..count).rev() {
                    pages.swap(index(at), index(chance.below(at + 1)));
                }
            }
        }
        pages
    }
}

/// Random numbers, the same in each run: Marsaglia's xorshift64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A series of its own for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.wrapping_add(1)) | 1)
    }

    /// A number below `end`, which is not 0 and small against 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Addresses to ask for, drawn before the clock runs: so many that they come round only when caches
/// have forgotten the first.
#[derive(Clone, Debug)]
pub struct Picks {
    addresses: Vec<u64>,
    next: usize,
}

impl Picks {
    const COUNT: usize = 1 << 16;

    /// Draws from `place(0)` to `place(count - 1)`; from `place(0)` alone if `count` is 0.
    pub fn new(place: fn(u64) -> u64, count: u64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let addresses = (0..Self::COUNT).map(|_| place(chance.below(count.max(1)))).collect();
        Self { addresses, next: 0 }
    }

    /// The next address.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.next = (self.next + 1) % Self::COUNT;
        self.addresses[self.next]
    }
}

/// A number of pages as an index.
pub fn index(number: u64) -> usize {
    usize::try_from(number).expect("a page's number is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_every_page_once() {
        let ascending = Order::Ascending.pages(1000);
        assert!(ascending.windows(2).all(|pair| pair[0] + 2 * PAGE == pair[1]));
        for order in [Order::Descending, Order::Shuffled] {
            let mut pages = order.pages(1000);
            assert_ne!(pages, ascending);
            pages.sort_unstable();
            assert_eq!(pages, ascending);
        }
    }

    #[test]
    fn picks_reach_most_places_and_no_other() {
        let mut picks = Picks::new(gap, 100, 7);
        let mut seen: Vec<u64> = (0..2000).map(|_| picks.draw()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..100).map(gap).collect::<Vec<_>>());
    }
}
