// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Addresses: an [`Iova`] is what a device puts on the bus, a [`Vaddr`] is what the mapping
//! process sees. They are different types, so one is never passed for the other.

use std::fmt;

/// An address space's address type: a 64-bit number with a meaning.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display {
    /// The address with this number.
    fn from_raw(raw: u64) -> Self;
    /// The number of this address.
    fn raw(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl Address for $name {
            fn from_raw(raw: u64) -> Self {
                Self(raw)
            }
            fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl From<u64> for $name {
            fn from(raw: u64) -> Self {
                Self(raw)
            }
        }
    };
}

address! {
    /// An I/O virtual address: the address a device uses for DMA, in bytes.
    Iova
}

address! {
    /// A virtual address of the process that maps memory, in bytes.
    Vaddr
}
