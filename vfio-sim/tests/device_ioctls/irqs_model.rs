// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SET_IRQS against a model that has nothing to lose: random requests, and after each one the errno, who
//! was signalled, and what is set up.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vfio_sim::device::IrqIndex;
use vfio_type1::{Errno, Kernel};

use crate::scene::{CLOSED, FIRST_FD, MSI_VECTORS, MSIX_VECTORS, OTHER_FILE, Scene, errno};

const COUNTS: [u32; 5] = [1, MSI_VECTORS as u32, MSIX_VECTORS as u32, 1, 1];

#[derive(Clone, Debug)]
struct Request {
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    data: Vec<u8>,
}

/// What is set up. Vectors are numbered over all kinds: 100 times the index, and the vector.
#[derive(Default)]
struct Naive {
    grows: bool,
    on: Option<u32>,
    enabled: u32,
    eventfds: Vec<(u32, i32)>,
}

impl Naive {
    fn get(&self, index: u32, vector: u32) -> Option<i32> {
        let known = |(key, _): &&(u32, i32)| *key == 100 * index + vector;
        self.eventfds.iter().find(known).map(|(_, fd)| *fd)
    }

    fn set(&mut self, index: u32, vector: u32, fd: i32) {
        self.eventfds.retain(|(key, _)| *key != 100 * index + vector);
        if fd >= 0 {
            self.eventfds.push((100 * index + vector, fd));
        }
    }

    fn turn_off(&mut self, index: u32) {
        self.on = None;
        self.eventfds.retain(|(key, _)| key / 100 != index);
    }

    /// The eventfds that are signalled.
    fn call(&mut self, request: &Request) -> Result<Vec<i32>, Errno> {
        let Request { flags, index, start, count, ref data } = *request;
        let (kind, action) = (flags & 7, flags & 0x38);
        let limit = *COUNTS.get(index as usize).ok_or(Errno::EINVAL)?;
        let size = match kind {
            1 => 0,
            2 => count,
            4 => 4 * count,
            _ => return Err(Errno::EINVAL),
        };
        if flags > 0x3f || start >= limit || start + count > limit || data.len() < size as usize {
            return Err(Errno::EINVAL);
        }
        let fds: Vec<i32> =
            data.chunks_exact(4).map(|fd| i32::from_le_bytes(fd.try_into().unwrap())).collect();
        match (index, action) {
            (0, 8 | 16) if self.on != Some(0) || count != 1 => Err(Errno::EINVAL),
            (0, 8) if kind == 4 => Err(Errno::ENOTTY),
            (0, 16) if kind == 4 && fds[0] >= 0 => Err(Errno::ENOTTY),
            // The device of this test never asserts its line.
            (0, 8 | 16) => Ok(Vec::new()),
            (0, 32) => self.line(kind, count, data, &fds),
            (1 | 2, 32) => self.messages(request, &fds),
            (3 | 4, 32) => self.single(index, kind, count, data, &fds),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn line(&mut self, kind: u32, count: u32, data: &[u8], fds: &[i32]) -> Result<Vec<i32>, Errno> {
        if self.on == Some(0) && count == 0 && kind == 1 {
            self.turn_off(0);
            return Ok(Vec::new());
        }
        if self.on.is_some_and(|on| on != 0) || count != 1 {
            return Err(Errno::EINVAL);
        }
        if kind == 4 {
            check(fds[0])?;
            self.on = Some(0);
            self.set(0, 0, fds[0]);
            return Ok(Vec::new());
        }
        if self.on != Some(0) {
            return Err(Errno::EINVAL);
        }
        let meant = kind == 1 || data[0] != 0;
        Ok(self.get(0, 0).filter(|_| meant).into_iter().collect())
    }

    fn messages(&mut self, request: &Request, fds: &[i32]) -> Result<Vec<i32>, Errno> {
        let Request { flags, index, start, count, ref data } = *request;
        let kind = flags & 7;
        if self.on == Some(index) && count == 0 && kind == 1 {
            self.turn_off(index);
            return Ok(Vec::new());
        }
        if self.on.is_some_and(|on| on != index) {
            return Err(Errno::EINVAL);
        }
        let was_on = self.on.is_some();
        if kind == 4 {
            if !was_on && start + count == 0 {
                return Err(Errno::ERANGE);
            }
            if !was_on {
                (self.on, self.enabled) = (Some(index), start + count);
            } else if !self.grows && (start >= self.enabled || start + count > self.enabled) {
                return Err(Errno::EINVAL);
            }
            for (vector, fd) in (start..start + count).zip(fds) {
                self.set(index, vector, -1);
                let beyond = *fd >= 0 && index == 1 && vector >= self.enabled;
                let checked = if beyond { Err(Errno::EINVAL) } else { check(*fd) };
                if let Err(errno) = checked {
                    (start..vector).for_each(|vector| self.set(index, vector, -1));
                    if !was_on {
                        self.turn_off(index);
                    }
                    return Err(errno);
                }
                self.set(index, vector, *fd);
                self.enabled = self.enabled.max(if *fd >= 0 { vector + 1 } else { 0 });
            }
            return Ok(Vec::new());
        }
        if !was_on || (!self.grows && start + count > self.enabled) {
            return Err(Errno::EINVAL);
        }
        let meant = |vector: &u32| kind == 1 || data[(vector - start) as usize] != 0;
        let vectors = (start..start + count).filter(meant);
        Ok(vectors.filter_map(|vector| self.get(index, vector)).collect())
    }

    fn single(
        &mut self,
        index: u32,
        kind: u32,
        count: u32,
        data: &[u8],
        fds: &[i32],
    ) -> Result<Vec<i32>, Errno> {
        let now = self.get(index, 0);
        match kind {
            1 if now.is_none() => return Err(Errno::EINVAL),
            1 if count == 0 => self.set(index, 0, -1),
            1 => return Ok(now.into_iter().collect()),
            _ if count == 0 => return Err(Errno::EINVAL),
            2 => return Ok(now.filter(|_| data[0] != 0).into_iter().collect()),
            _ if fds[0] < -1 => {}
            _ => {
                check(fds[0])?;
                self.set(index, 0, fds[0]);
            }
        }
        Ok(Vec::new())
    }
}

fn check(fd: i32) -> Result<(), Errno> {
    match fd {
        OTHER_FILE => Err(Errno::EINVAL),
        CLOSED => Err(Errno::EBADF),
        _ => Ok(()),
    }
}

fn request() -> impl Strategy<Value = Request> {
    let flags = prop_oneof![
        12 => prop::sample::select(vec![1 | 32, 2 | 32, 4 | 32, 4 | 32, 4 | 32]),
        3 => prop::sample::select(vec![1 | 8, 2 | 8, 4 | 8, 1 | 16, 2 | 16, 4 | 16]),
        1 => 0..128_u32,
    ];
    let fd = prop_oneof![
        12 => FIRST_FD..FIRST_FD + 12,
        3 => -2..0_i32,
        1 => prop::sample::select(vec![CLOSED, OTHER_FILE]),
    ];
    let count = prop_oneof![2 => Just(0), 8 => 1..4_u32, 1 => 0..10_u32];
    let start = prop_oneof![4 => Just(0), 3 => 0..9_u32];
    (flags, 0..6_u32, start, count, prop::collection::vec(fd, 10), any::<[bool; 10]>()).prop_map(
        |(flags, index, start, count, fds, bools)| {
            let data: Vec<u8> = match flags & 7 {
                4 => fds.iter().flat_map(|fd| fd.to_le_bytes()).take(4 * count as usize).collect(),
                2 => bools.iter().map(|bool| u8::from(*bool)).take(count as usize).collect(),
                _ => Vec::new(),
            };
            Request { flags, index, start, count, data }
        },
    )
}

fn compare(kernel: Kernel, requests: &[Request]) -> Result<usize, TestCaseError> {
    let scene = Scene::new(kernel);
    let grows = kernel.behaviours().dynamic_msix;
    let mut naive = Naive { grows, ..Naive::default() };
    let mut done = 0;
    for request in requests {
        let Request { flags, index, start, count, ref data } = *request;
        let answer = errno(scene.set_irqs([flags, index, start, count], data));
        let expected = naive.call(request);
        prop_assert_eq!(answer, expected.as_ref().err().copied(), "{:x?}", request);
        done += usize::from(expected.is_ok());
        let mut signalled = expected.unwrap_or_default();
        signalled.sort_unstable();
        prop_assert_eq!(scene.signalled(), signalled, "{:x?}", request);
        for (number, index) in (0..).zip(IrqIndex::ALL) {
            for vector in 0..scene.device.irq_count(index) {
                scene.device.trigger(index, vector);
                let expected: Vec<i32> = naive.get(number, vector.into()).into_iter().collect();
                prop_assert_eq!(scene.signalled(), expected, "{} {}", index, vector);
            }
        }
    }
    Ok(done)
}

#[test]
fn random_requests_do_what_the_model_says() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let done = std::cell::Cell::new(0);
    let programs = prop::collection::vec(request(), 1..40);
    let run = runner.run(&programs, |requests| {
        for kernel in [Kernel::V6_1, Kernel::NEWEST] {
            done.set(done.get() + compare(kernel, &requests)?);
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(done.get() > 500, "most requests were refused: {} were not", done.get());
}
