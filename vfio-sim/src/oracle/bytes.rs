// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ioctls of a container and of a group as bytes (0.3, 0.4, and step 1 of each operation).

use vfio_type1::{DirtyPages, Errno, Iova, MapDma, UnmapDma, UserBitmap, Vaddr};

use super::dirty::Dirty;
use super::files::{Driver, Target};
use super::refusal::{Answer, refuse, refuse_with};
use super::{Oracle, info};

impl Oracle {
    /// 1.2: what an ioctl on a container returns.
    pub fn ioctl(
        &mut self,
        container: usize,
        caller: usize,
        command: u32,
        arg: u64,
    ) -> Answer<i32> {
        match command {
            0x3b64 => return Ok(0),
            0x3b65 => return Ok(i32::from(self.check_extension(container, arg))),
            0x3b66 => {
                let set = self.set_iommu(container, caller, arg);
                return set.map(|()| 0).map_err(|error| error.inside("SetIommu"));
            }
            _ => {}
        }
        self.type1(container)?;
        match command {
            0x3b70 => self.get_info(container, caller, arg)?,
            0x3b71 => self.map_bytes(container, caller, arg)?,
            0x3b72 => self.unmap_bytes(container, caller, arg)?,
            // 7.2: introduced in 5.8.
            0x3b75 if self.host.release.from(5, 8) => self.dirty_bytes(container, caller, arg)?,
            _ => return refuse("UnknownCommand", Errno::ENOTTY),
        }
        Ok(0)
    }

    /// 2.3 as bytes.
    pub fn status_ioctl(&mut self, group: usize, caller: usize, arg: u64) -> Answer<()> {
        let bytes = self.read(caller, arg, 8)?;
        check_argsz(&bytes, 8)?;
        let (viable, set) = self.status(group);
        let flags = u32::from(viable) | u32::from(set) << 1;
        let answer = [u32_at(&bytes, 0).to_le_bytes(), flags.to_le_bytes()].concat();
        self.write(caller, arg, &answer)
    }

    /// 2.4 as bytes: `resolve` says what a descriptor refers to.
    pub fn set_container_ioctl(
        &mut self,
        group: usize,
        caller: usize,
        arg: u64,
        resolve: impl FnOnce(i32) -> Target,
    ) -> Answer<()> {
        let bytes = self.read(caller, arg, 4)?;
        let fd = u32_at(&bytes, 0).cast_signed();
        self.set_container(group, caller, fd, resolve(fd))
    }

    /// 7.1.
    fn get_info(&mut self, container: usize, caller: usize, arg: u64) -> Answer<()> {
        let release = self.host.release;
        let bytes = self.read(caller, arg, 16)?;
        check_argsz(&bytes, 16)?;
        let info = self.info(container)?;
        let (header, chain) = info::reply(release, &info, u32_at(&bytes, 0));
        self.write(caller, arg.wrapping_add(24), &chain)?;
        self.write(caller, arg, &header)
    }

    /// 5.1 steps 1 and 2.
    fn map_bytes(&mut self, container: usize, caller: usize, arg: u64) -> Answer<()> {
        let bytes = self.read(caller, arg, 32)?;
        check_argsz(&bytes, 32)?;
        let request = MapDma {
            flags: u32_at(&bytes, 4),
            vaddr: Vaddr(u64_at(&bytes, 8)),
            iova: Iova(u64_at(&bytes, 16)),
            size: u64_at(&bytes, 24),
        };
        self.map(container, caller, &request).map_err(|error| error.inside("Map"))
    }

    /// 6.1 steps 1 to 4, and the result.
    fn unmap_bytes(&mut self, container: usize, caller: usize, arg: u64) -> Answer<()> {
        let bytes = self.read(caller, arg, 24)?;
        check_argsz(&bytes, 24)?;
        let flags = u32_at(&bytes, 4);
        let mut request = UnmapDma {
            flags,
            iova: Iova(u64_at(&bytes, 8)),
            size: u64_at(&bytes, 16),
            bitmap: UserBitmap::default(),
        };
        // Flags come before the bitmap is read (steps 2 and 3).
        if flags == UnmapDma::DIRTY_BITMAP && self.host.release.from(5, 8) {
            check_argsz(&bytes, 48)?;
            request.bitmap = bitmap(&self.read(caller, arg.wrapping_add(24), 24)?);
        }
        let unmapped = self.unmap(container, caller, &request);
        let unmapped = unmapped.map_err(|error| error.inside("Unmap"))?;
        let answer = [&bytes[..16], &unmapped.to_le_bytes()].concat();
        match self.processes[caller].memory.write(arg, &answer) {
            Ok(()) => Ok(()),
            Err(at) => refuse_with("UnmapResult", Errno::EFAULT, [unmapped, at]),
        }
    }

    /// 7.2 steps 1 to 4.
    fn dirty_bytes(&mut self, container: usize, caller: usize, arg: u64) -> Answer<()> {
        let (host, _, type1) = self.type1(container)?;
        type1.check_tracks(host.release).map_err(|error| error.inside("Dirty"))?;
        let bytes = self.read(caller, arg, 8)?;
        check_argsz(&bytes, 8)?;
        let request = match u32_at(&bytes, 4) {
            DirtyPages::START => Dirty::Start,
            DirtyPages::STOP => Dirty::Stop,
            DirtyPages::GET_BITMAP => {
                check_argsz(&bytes, 48)?;
                let get = self.read(caller, arg.wrapping_add(8), 40)?;
                Dirty::Get(u64_at(&get, 0), u64_at(&get, 8), bitmap(&get[16..]))
            }
            _ => return refuse("Dirty/NotOneFlag", Errno::EINVAL),
        };
        self.dirty(container, caller, &request).map_err(|error| error.inside("Dirty"))
    }

    /// A container has a driver.
    pub fn has_driver(&self, container: usize) -> bool {
        !matches!(self.containers[container].driver, Driver::Unset)
    }

    fn read(&self, process: usize, from: u64, length: u64) -> Answer<Vec<u8>> {
        match self.processes[process].memory.read(from, length) {
            Ok(bytes) => Ok(bytes),
            Err(at) => refuse_with("Argument/Fault", Errno::EFAULT, [at]),
        }
    }

    fn write(&mut self, process: usize, to: u64, bytes: &[u8]) -> Answer<()> {
        match self.processes[process].memory.write(to, bytes) {
            Ok(()) => Ok(()),
            Err(at) => refuse_with("Argument/Fault", Errno::EFAULT, [at]),
        }
    }
}

fn check_argsz(bytes: &[u8], minimum: u32) -> Answer<()> {
    let argsz = u32_at(bytes, 0);
    if argsz < minimum {
        let numbers = [u64::from(argsz), u64::from(minimum)];
        return refuse_with("Argument/TooShort", Errno::EINVAL, numbers);
    }
    Ok(())
}

fn bitmap(bytes: &[u8]) -> UserBitmap {
    UserBitmap {
        page_size: u64_at(bytes, 0),
        bytes: u64_at(bytes, 8),
        data: Vaddr(u64_at(bytes, 16)),
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.iter().skip(offset).take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.iter().skip(offset).take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
