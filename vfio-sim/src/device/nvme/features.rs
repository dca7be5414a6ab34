// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Features: what a host sets and asks for (NVMe Base 1.4, 5.21.1).
//!
//! What only says how fast or how warm to be is kept and told, and changes nothing here.

use super::VECTORS;
use super::command::shorts;
use super::identify::WARNING_TEMPERATURE;
use super::queue::IO_QUEUES;
use super::status::Status;

/// Identifiers of features.
mod id {
    pub(super) const ARBITRATION: u8 = 0x01;
    pub(super) const POWER: u8 = 0x02;
    pub(super) const TEMPERATURE: u8 = 0x04;
    pub(super) const ERROR_RECOVERY: u8 = 0x05;
    pub(super) const WRITE_CACHE: u8 = 0x06;
    pub(super) const QUEUES: u8 = 0x07;
    pub(super) const COALESCING: u8 = 0x08;
    pub(super) const VECTOR: u8 = 0x09;
    pub(super) const ATOMICITY: u8 = 0x0a;
    pub(super) const EVENTS: u8 = 0x0b;
}

/// Reading a deallocated block is no error here, and cannot be made one.
const DEALLOCATED_IS_AN_ERROR: u32 = 1 << 16;
/// The two numbers of queues that the feature has, each less one.
const QUEUE_COUNTS: u32 = (IO_QUEUES as u32 - 1) << 16 | (IO_QUEUES as u32 - 1);

/// The features as they are set.
#[derive(Clone, Debug)]
pub(super) struct Features {
    arbitration: u32,
    /// Too warm above, and too cold below.
    temperatures: [u16; 2],
    error_recovery: u32,
    pub(super) write_cache: bool,
    coalescing: u32,
    /// A bit for each vector that is not to be coalesced.
    not_coalesced: u32,
    atomicity: u32,
    events: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            arbitration: 0,
            temperatures: [WARNING_TEMPERATURE, 0],
            error_recovery: 0,
            write_cache: true,
            coalescing: 0,
            not_coalesced: 0,
            atomicity: 0,
            events: 0,
        }
    }
}

impl Features {
    /// Sets a feature; returns the command's result.
    pub(super) fn set(&mut self, id: u8, value: u32, has_queues: bool) -> Result<u32, Status> {
        match id {
            id::ARBITRATION => self.arbitration = value,
            // There is one power state.
            id::POWER if value & 0x1f == 0 => {}
            id::TEMPERATURE => self.set_temperature(value)?,
            id::ERROR_RECOVERY if value & DEALLOCATED_IS_AN_ERROR == 0 => {
                self.error_recovery = value
            }
            id::WRITE_CACHE => self.write_cache = value & 1 != 0,
            id::QUEUES => return queues(value, has_queues),
            id::COALESCING => self.coalescing = value & 0xffff,
            id::VECTOR => {
                let bit = vector(value)?;
                let apart = if value >> 16 & 1 != 0 { bit } else { 0 };
                self.not_coalesced = self.not_coalesced & !bit | apart;
            }
            id::ATOMICITY => self.atomicity = value & 1,
            id::EVENTS => self.events = value,
            _ => return Err(Status::InvalidField),
        }
        Ok(0)
    }

    /// What a feature is set to. `value` says which, of features that are several.
    pub(super) fn get(&self, id: u8, value: u32) -> Result<u32, Status> {
        Ok(match id {
            id::ARBITRATION => self.arbitration,
            id::POWER => 0,
            id::TEMPERATURE => u32::from(self.temperatures[threshold(value, &[0])?]),
            id::ERROR_RECOVERY => self.error_recovery,
            id::WRITE_CACHE => u32::from(self.write_cache),
            id::QUEUES => QUEUE_COUNTS,
            id::COALESCING => self.coalescing,
            id::VECTOR => {
                let apart = self.not_coalesced & vector(value)? != 0;
                value & 0xffff | u32::from(apart) << 16
            }
            id::ATOMICITY => self.atomicity,
            id::EVENTS => self.events,
            _ => return Err(Status::InvalidField),
        })
    }

    fn set_temperature(&mut self, value: u32) -> Result<(), Status> {
        const ALL_SENSORS: u32 = 0xf;
        let (kelvins, _) = shorts(value);
        self.temperatures[threshold(value, &[0, ALL_SENSORS])?] = kelvins;
        Ok(())
    }
}

/// Whether it is the threshold above or the one below, of one of the sensors that `known` lists.
fn threshold(value: u32, known: &[u32]) -> Result<usize, Status> {
    match (value >> 16 & 0xf, value >> 20 & 3) {
        (sensor, 0) if known.contains(&sensor) => Ok(0),
        (sensor, 1) if known.contains(&sensor) => Ok(1),
        _ => Err(Status::InvalidField),
    }
}

/// How many queues there may be: always as many, whatever is asked for. When there are queues it is too
/// late to ask.
fn queues(asked: u32, has_queues: bool) -> Result<u32, Status> {
    if has_queues {
        return Err(Status::Sequence);
    }
    if asked & 0xffff == 0xffff || asked >> 16 == 0xffff {
        return Err(Status::InvalidField);
    }
    Ok(QUEUE_COUNTS)
}

/// The bit of a vector.
fn vector(value: u32) -> Result<u32, Status> {
    match value & 0xffff {
        vector if vector < u32::from(VECTORS) => Ok(1 << vector),
        _ => Err(Status::InvalidField),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_told() {
        let mut features = Features::default();
        for (id, value) in [(1, 0x0102_0303), (4, 0x140), (5, 9), (6, 0), (8, 0x1234), (0xb, 0x1f)]
        {
            assert_eq!(features.set(id, value, true), Ok(0));
            assert_eq!(features.get(id, 0), Ok(value), "feature {id:#x}");
        }
        // Too cold is another threshold than too warm.
        features.set(4, 1 << 20 | 0x100, false).unwrap();
        assert_eq!((features.get(4, 0), features.get(4, 1 << 20)), (Ok(0x140), Ok(0x100)));
        features.set(9, 1 << 16 | 31, false).unwrap();
        assert_eq!((features.get(9, 31), features.get(9, 30)), (Ok(0x1_001f), Ok(30)));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let mut features = Features::default();
        for (id, value) in [(2, 1), (4, 1 << 16), (4, 2 << 20), (5, 1 << 16), (9, 32), (3, 0)] {
            assert_eq!(
                features.set(id, value, false),
                Err(Status::InvalidField),
                "feature {id:#x}"
            );
        }
        assert_eq!(features.set(7, 0xffff, false), Err(Status::InvalidField));
        assert_eq!(features.set(7, 0, true), Err(Status::Sequence));
        assert_eq!(features.set(7, 0, false), Ok(0x3f_003f));
    }
}
