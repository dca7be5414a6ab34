// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A reader of GET_INFO's answer, written from `docs/type1.md` 7.1 alone.

/// What the answer says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) argsz: u32,
    pub(crate) page_sizes: u64,
    /// Capabilities in the order of the chain: id, offset.
    pub(crate) order: Vec<(u16, usize)>,
    pub(crate) ranges: Vec<(u64, u64)>,
    /// Page sizes that a dirty bitmap takes, and the most bytes it may have.
    pub(crate) migration: Option<(u64, u64)>,
    pub(crate) entries_left: Option<u32>,
    /// Where the chain ends.
    pub(crate) end: usize,
}

/// Reads an answer in a buffer of the size that was stated, or says what is wrong with it.
pub(crate) fn read(bytes: &[u8]) -> Result<Answer, String> {
    let mut answer =
        Answer { argsz: u32_at(bytes, 0)?, page_sizes: u64_at(bytes, 8)?, ..Answer::default() };
    let flags = u32_at(bytes, 4)?;
    if flags & !3 != 0 || flags & 1 == 0 {
        return Err(format!("flags {flags:#x}"));
    }
    // Without the flag, what follows 16 bytes is not part of the answer; nor where there was no room.
    let chained = flags & 2 != 0 && bytes.len() >= 20;
    let mut next = if chained { u32_at(bytes, 16)? as usize } else { 0 };
    let mut at = 24;
    while next != 0 {
        if next < at {
            return Err(format!("a capability at {next}, before the end of the last one, {at}"));
        }
        let (id, version) = (u16_at(bytes, next)?, u16_at(bytes, next + 2)?);
        if version != 1 {
            return Err(format!("version {version} of capability {id}"));
        }
        answer.order.push((id, next));
        at = answer.read_body(bytes, id, next)?;
        next = u32_at(bytes, next + 4)? as usize;
    }
    answer.end = at;
    Ok(answer)
}

impl Answer {
    /// Reads one capability and says where it ends.
    fn read_body(&mut self, bytes: &[u8], id: u16, at: usize) -> Result<usize, String> {
        match id {
            1 => {
                let count = u32_at(bytes, at + 8)? as usize;
                let range = |n: usize| {
                    Ok((u64_at(bytes, at + 16 + 16 * n)?, u64_at(bytes, at + 24 + 16 * n)?))
                };
                self.ranges = (0..count).map(range).collect::<Result<_, String>>()?;
                Ok(at + 16 + 16 * count)
            }
            2 => {
                self.migration = Some((u64_at(bytes, at + 16)?, u64_at(bytes, at + 24)?));
                Ok(at + 32)
            }
            3 => {
                self.entries_left = Some(u32_at(bytes, at + 8)?);
                Ok(at + 12)
            }
            other => Err(format!("capability {other}")),
        }
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let part = bytes.get(at..at + N).ok_or_else(|| format!("the answer ends before {at} + {N}"))?;
    part.try_into().map_err(|_| "a part has its size".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    part(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    part(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    part(bytes, at).map(u64::from_le_bytes)
}
