// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What calls do on our files. Each answers a value or an errno, as the kernel would.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, OFlags};
use vfio_sim::device::ioctl::DeviceIoctlError;
use vfio_sim::device::{Listener, NotEventFd};
use vfio_sim::run::line::Line;
use vfio_type1::abi::{CdevIoctlError, FileOperation, GroupReply, command, container_file_errno};
use vfio_type1::{Errno, FdTarget, GroupId, Memory as _, OpenCdev, OpenGroup, Vaddr};

use crate::files::File;
use crate::inside::{self, Inside};
use crate::opened::{Opened, OpenedBy};
use crate::own::{self, Kept};
use crate::say::{self, STDERR, say, say_once};
use crate::tape::{self, Name};
use crate::trap;
use crate::world::{FileId, Node, World};

/// What the kernel answers a call.
pub(crate) type Answer = Result<i64, Errno>;

/// The file system that VFIO's files are on, or 0 before it is known.
static FILE_SYSTEM: AtomicU64 = AtomicU64::new(0);

/// The file system that VFIO's files are on, as `st_dev` has it; of no file if there are none.
pub(crate) fn file_system() -> u64 {
    let mut known = FILE_SYSTEM.load(Ordering::Relaxed);
    if known == 0 {
        known = rustix::fs::stat("/dev/vfio/vfio").map_or(u64::MAX, |stat| stat.st_dev);
        FILE_SYSTEM.store(known, Ordering::Relaxed);
    }
    known
}

/// The identity of a descriptor's file, if it is on the file system of VFIO's files.
fn identity(fd: RawFd) -> Option<FileId> {
    let known = file_system();
    let stat = rustix::fs::fstat(borrow(fd)?).ok()?;
    (stat.st_dev == known).then_some((stat.st_dev, stat.st_ino))
}

#[expect(unsafe_code, reason = "the descriptor is the program's, and is used for a call at once")]
fn borrow<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: it is not -1. That it is open is the program's business: a system call looks.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Notes a descriptor that the program has just opened. An error means that the kernel would not have opened
/// it.
pub(crate) fn opened(fd: RawFd) -> Result<(), Errno> {
    closing(fd);
    let Some(id) = identity(fd) else { return Ok(()) };
    let _inside = inside::enter();
    // One that is only a place in the tree opens nothing; nor does a child that borrows its parent's memory.
    let place = borrow(fd).and_then(|fd| rustix::fs::fcntl_getfl(fd).ok());
    if borrows_memory() || place.is_none_or(|flags| flags.contains(OFlags::PATH)) {
        return Ok(());
    }
    let world = World::get_or_make().ok_or(Errno::ENODEV)?;
    // Before the first copy of ours can fault.
    trap::install();
    let file = match world.node(id) {
        None => return Ok(()),
        Some(Node::Container) => {
            world.read_limits();
            let (name, container) = (Name::new(), world.vfio.open_container());
            world.note(Line::Container(&name), Ok(0));
            File::Container(name.opened(), container)
        }
        Some(Node::Iommufd) => {
            world.read_limits();
            let (name, iommufd) = (Name::new(), world.vfio.open_iommu());
            let iommufd = iommufd.map_err(|error| error.errno())?;
            world.note(Line::Iommufd(&name), Ok(0));
            File::Iommufd(name.opened(), iommufd)
        }
        Some(Node::Group(group)) => open_group(world, fd, group)?,
        Some(Node::Cdev(at)) => open_cdev(world, world.cdev(at).ok_or(Errno::ENODEV)?)?,
    };
    world.files.set(fd, Some(Arc::new(file)));
    Ok(())
}

/// How a recording tells of an opening: the number of the descriptor is nobody's business.
fn zero<T>(opened: &Result<T, Errno>) -> Answer {
    opened.as_ref().map(|_| 0).map_err(|errno| *errno)
}

fn open_group(world: &World, fd: RawFd, group: GroupId) -> Result<File, Errno> {
    // The lock goes with the last descriptor, in whatever process: one opener at a time.
    let file = borrow(fd).ok_or(Errno::EBADF)?;
    let lock = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    let lock = lock.map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => Errno::EBUSY,
        error => Errno(error.raw_os_error()),
    });
    let opened = || world.vfio.open_group(group, &world.process).map_err(|error| error.errno());
    let (name, opened) = (Name::new(), lock.and_then(|()| opened()));
    if let (Some(tape), Some(device)) = (&world.tape, world.device_of(group)) {
        match lock {
            Ok(()) => tape.write(Line::Group(&name, device), zero(&opened)),
            Err(_) => tape.remark(format_args!("group {group} is open in another process")),
        }
    }
    opened.map(|group| File::Group(name.opened(), group))
}

/// Says why a group has no file that the program has looked for.
pub(crate) fn not_there(path: &CStr) {
    let number =
        path.to_bytes().strip_prefix(b"/dev/vfio/").and_then(|name| str::from_utf8(name).ok());
    let Some(number) = number.and_then(|name| name.parse().ok()) else { return };
    let _inside = inside::enter();
    let Some(world) = World::get_or_make() else { return };
    if let Err(error) = world.vfio.open_group(GroupId::Numbered(number), &world.process) {
        say_once(format!("{}: {error}", path.to_string_lossy()));
    }
}

fn open_cdev(world: &World, device: &str) -> Result<File, Errno> {
    let opened = world.vfio.open_cdev(device).map_err(|error| error.errno());
    let name = Name::new();
    world.note(Line::Cdev(&name, device), zero(&opened));
    let (name, cdev) = (name.opened(), opened?);
    Ok(File::Device(Arc::new(Opened::new(name, world.slot(device)?, OpenedBy::Node(cdev)))))
}

/// Whether this is a child of `vfork`, which leaves its parent's memory as it is.
fn borrows_memory() -> bool {
    World::get().is_some_and(|world| !world.is_here())
}

/// Notes that a descriptor is about to be closed.
pub(crate) fn closing(fd: RawFd) {
    if fd == STDERR && !borrows_memory() {
        say::stderr_is(false);
    }
    if let Some(world) = World::get().filter(|world| world.files.has(fd) && world.is_here()) {
        let _inside = inside::enter();
        world.files.set(fd, None);
        world.note_findings();
    } else if let Some(parents) = World::parents() {
        parents.files.forget(fd);
    }
}

/// Notes that descriptors are about to be closed, from `first` to `last`.
pub(crate) fn closing_all(first: RawFd, last: RawFd) {
    if (first..=last).contains(&STDERR) && !borrows_memory() {
        say::stderr_is(false);
    }
    if let Some(parents) = World::parents() {
        parents.files.between(first, last).into_iter().for_each(|fd| parents.files.forget(fd));
    }
    let Some(world) = World::get().filter(|world| world.is_here()) else { return };
    let _inside = inside::enter();
    for fd in world.files.between(first, last) {
        world.files.set(fd, None);
    }
    world.note_findings();
}

/// Notes that `to` is open on what `from` is open on.
pub(crate) fn duplicated(from: RawFd, to: RawFd) {
    // What is put in stderr's place on purpose is stderr.
    if to == STDERR && !borrows_memory() {
        say::stderr_is(true);
    }
    let concerns = |world: &World| world.files.has(from) || world.files.has(to);
    World::inheriting(from);
    if let Some(world) = World::get().filter(|world| from != to && concerns(world))
        && world.is_here()
    {
        let _inside = inside::enter();
        world.files.set(to, world.files.get(from));
    }
}

/// The world and a descriptor's file, if it is ours; the thread is inside for as long as it holds the third.
#[inline]
pub(crate) fn ours(fd: RawFd) -> Option<(&'static World, Arc<File>, Inside)> {
    let world = match World::get() {
        Some(world) if world.files.has(fd) => world,
        _ => World::inheriting(fd)?,
    };
    let inside = inside::enter();
    world.files.get(fd).map(|file| (world, file, inside))
}

/// The same, having looked whether the descriptor still is: it may have been closed, and used for another file, in
/// a way that goes past us. Calls that may be made a million times a second do without.
pub(crate) fn checked(fd: RawFd) -> Option<(&'static World, Arc<File>, Inside)> {
    let (world, file, inside) = ours(fd)?;
    let still = match &*file {
        File::Device(opened) if opened.cdev().is_none() => opened.is_file(borrow(fd)?),
        File::Kvm(_) | File::Inherited(_) => true,
        _ => identity(fd).is_some(),
    };
    if !still {
        closing(fd);
    }
    still.then_some((world, file, inside))
}

/// The ioctls that the kernel carries out on any file: FIONCLEX, FIOCLEX, FIONBIO, FIOASYNC.
const GENERIC: [u64; 4] = [0x5450, 0x5451, 0x5421, 0x5452];

/// The type of VFIO's ioctls, in bits 8 to 15 of the command.
const VFIO_TYPE: u64 = 0x3b;

/// An ioctl; `None` if it is not for us.
#[inline]
pub(crate) fn ioctl(fd: RawFd, command: u64, arg: u64) -> Option<Answer> {
    if GENERIC.contains(&command) {
        return None;
    }
    let Some((world, file, _inside)) = ours(fd) else {
        let strange = command >> 8 & 0xff == VFIO_TYPE && identity(fd).is_some();
        return strange.then(|| Err(refuse_inherited(fd)));
    };
    // The kernel takes the lower half alone.
    let command = u32::try_from(command & 0xffff_ffff).unwrap_or(0);
    Some(match &*file {
        File::Container(name, container) => {
            let make = || {
                let answer = container.ioctl(&world.process, command, arg);
                answer.map(i64::from).map_err(|error| error.errno())
            };
            recorded(world, name, (command, arg), make)
        }
        File::Iommufd(name, iommufd) => {
            let make = || {
                let answer = iommufd.ioctl(&world.process, command, arg);
                if let Err(error) = &answer
                    && error.is_not_modelled()
                {
                    say_once(error);
                }
                answer.map(i64::from).map_err(|error| error.errno())
            };
            recorded(world, name, (command, arg), make)
        }
        File::Group(name, group) => group_ioctl(world, name, group, command, arg),
        File::Device(opened) => device_ioctl(world, opened, command, arg),
        File::Kvm(device) => device.ioctl(world, command, arg),
        File::Inherited(_) => Err(refuse_inherited(fd)),
    })
}

/// Makes an ioctl, and writes it down if a recording is wanted.
#[inline]
fn recorded(world: &World, name: &Name, call: (u32, u64), make: impl FnOnce() -> Answer) -> Answer {
    match &world.tape {
        Some(tape) => tape.ioctl(world, name, call, make),
        None => make(),
    }
}

/// A process that has inherited a file of VFIO's, or got it in a message, would share its parent's
/// containers; here each process has a host of its own.
fn refuse_inherited(fd: RawFd) -> Errno {
    say(format!(
        "process {} uses descriptor {fd} of VFIO, which another process opened, or this one in a way \
         that is not seen; open the file with open() in the process that uses it",
        std::process::id()
    ));
    Errno::EIO
}

fn group_ioctl(world: &World, name: &Name, group: &OpenGroup, command: u32, arg: u64) -> Answer {
    let make = || make_group_ioctl(world, group, command, arg);
    let Some(tape) = &world.tape else { return make().map(|(value, _)| value) };
    let number = |bytes: &[u8]| bytes.try_into().map_or(-1, i32::from_le_bytes);
    match command {
        command::GROUP_SET_CONTAINER => {
            let fd = number(&tape::read(&world.memory, arg, 4));
            let container = world.files.get(fd);
            match container.as_deref() {
                Some(File::Container(container, _) | File::Iommufd(container, _)) => tape
                    .call(Line::SetContainer(name, container), || make().map(|(value, _)| value)),
                _ => {
                    tape.remark(format_args!("{name}: SET_CONTAINER with descriptor {fd}"));
                    make().map(|(value, _)| value)
                }
            }
        }
        command::GROUP_GET_DEVICE_FD => {
            let device = tape::text(&world.memory, arg);
            let opened = make();
            let unnamed = Name::new();
            let file = opened.as_ref().ok().and_then(|(_, opened)| opened.as_ref());
            let file = file.map_or(&unnamed, |opened| opened.name());
            tape.write(Line::Device(file, name, &device), zero(&opened));
            opened.map(|(value, _)| value)
        }
        _ => tape.ioctl(world, name, (command, arg), || make().map(|(value, _)| value)),
    }
}

/// The answer, and the device that was opened.
fn make_group_ioctl(
    world: &World,
    group: &OpenGroup,
    command: u32,
    arg: u64,
) -> Result<(i64, Option<Arc<Opened>>), Errno> {
    let target = |fd| target(world, fd);
    let reply = group.ioctl(&world.process, command, arg, target);
    match reply.map_err(|error| error.errno())? {
        GroupReply::Done => Ok((0, None)),
        GroupReply::Device(open) => {
            let slot = world.slot(open.name())?;
            let opened = Arc::new(Opened::new(Name::new().opened(), slot, OpenedBy::Group(open)));
            let fd = opened.descriptor()?.into_raw_fd();
            world.files.set(fd, Some(Arc::new(File::Device(Arc::clone(&opened)))));
            Ok((i64::from(fd), Some(opened)))
        }
    }
}

/// What a descriptor leads to.
fn target(world: &World, fd: RawFd) -> FdTarget {
    match world.files.get(fd).as_deref() {
        Some(File::Container(_, container)) => FdTarget::Container(container.clone()),
        Some(File::Iommufd(_, iommufd)) => FdTarget::Iommufd(iommufd.clone()),
        Some(File::Group(..) | File::Device(_) | File::Kvm(_) | File::Inherited(_)) => {
            FdTarget::Other
        }
        None if check_open(fd).is_ok() => FdTarget::Other,
        None => FdTarget::Closed,
    }
}

fn device_ioctl(world: &World, opened: &Opened, command: u32, arg: u64) -> Answer {
    match opened.cdev() {
        Some(cdev) => match cdev_ioctl(world, opened, cdev, command, arg) {
            Err(CdevIoctlError::UnknownCommand { .. }) => {}
            answer => return answer.map(i64::from).map_err(|error| error.errno()),
        },
        None if command == command::DEVICE_BIND_IOMMUFD && world.has_cdevs() => {
            return Err(refuse_bind(world, arg));
        }
        None => {}
    }
    let eventfd = |fd| eventfd(world.descriptors.as_ref(), fd);
    let answer = opened.device().ioctl(&world.process, command, arg, eventfd);
    // A kernel may know it.
    if let Err(DeviceIoctlError::UnknownCommand { .. }) = &answer {
        let name = opened.device().name();
        say_once(format!("{name}: ioctl {command:#x} on a device is not modelled: ENOTTY"));
    }
    answer.map(i64::from).map_err(|error| error.errno())
}

/// BIND_IOMMUFD is for devices that were opened by their own nodes (`vfio_df_ioctl_bind_iommufd`).
fn refuse_bind(world: &World, arg: u64) -> Errno {
    let argument = world.memory.read(Vaddr(arg), &mut [0; 16]);
    if argument.is_ok() { Errno::EINVAL } else { Errno::EFAULT }
}

/// What is about iommufd of a device that was opened by its own node.
fn cdev_ioctl(
    world: &World,
    opened: &Opened,
    cdev: &OpenCdev,
    command: u32,
    arg: u64,
) -> Result<i32, CdevIoctlError> {
    let make = || cdev.ioctl(&world.process, command, arg, |fd| target(world, fd));
    let Some(tape) = &world.tape else { return make() };
    let request = tape::read(&world.memory, arg, 12);
    let answer = make();
    let told = answer.as_ref().map(|value| i64::from(*value)).map_err(CdevIoctlError::errno);
    match command {
        command::DEVICE_BIND_IOMMUFD => {
            let fd = request.get(8..12).and_then(|bytes| bytes.try_into().ok());
            let iommufd = fd.and_then(|fd| world.files.get(i32::from_le_bytes(fd)));
            if let Some(File::Iommufd(iommufd, _)) = iommufd.as_deref() {
                tape.write(Line::Bind(opened.name(), iommufd), told);
            }
        }
        command::DEVICE_ATTACH_IOMMUFD_PT | command::DEVICE_DETACH_IOMMUFD_PT => {
            let after = tape::read(&world.memory, arg, request.len());
            tape.write(Line::Ioctl(opened.name(), command, &request, &after), told);
        }
        _ => {}
    }
    answer
}

/// EBADF for a descriptor that is not open.
pub(crate) fn check_open(fd: RawFd) -> Result<(), Errno> {
    let open = borrow(fd).is_some_and(|fd| rustix::io::fcntl_getfd(fd).is_ok());
    if open { Ok(()) } else { Err(Errno::EBADF) }
}

/// A copy of the program's descriptor. EBADF if it is not open.
pub(crate) fn copy(fd: RawFd) -> Result<Kept, Errno> {
    let open = borrow(fd).ok_or(Errno::EBADF)?;
    own::copy(open).map_err(|error| Errno(error.raw_os_error()))
}

/// The program's eventfd, kept open for as long as the device signals it. What a descriptor is, `/proc/self/fd` says;
/// without it the program is believed.
fn eventfd(descriptors: Option<&Kept>, fd: i32) -> Result<Listener, NotEventFd> {
    let copy = copy(fd).map_err(|_| NotEventFd::Closed)?;
    let target = descriptors.map(|at| rustix::fs::readlinkat(at, fd.to_string(), Vec::new()));
    match target {
        Some(Ok(target)) if target.to_bytes() != b"anon_inode:[eventfd]" => Err(NotEventFd::Other),
        _ => Ok(Listener::new(copy)),
    }
}

/// The device, if the file is one.
pub(crate) fn device<'a>(
    world: &World,
    file: &'a File,
    operation: FileOperation,
) -> Result<&'a Arc<Opened>, Errno> {
    match file {
        File::Device(opened) => Ok(opened),
        // iommufd's files have none of these either.
        File::Container(..) | File::Iommufd(..) => {
            Err(container_file_errno(world.vfio.kernel(), operation))
        }
        File::Inherited(fd) => Err(refuse_inherited(*fd)),
        // The others' files have no operation for it.
        File::Group(..) | File::Kvm(_) => Err(match operation {
            FileOperation::Mmap => Errno::ENODEV,
            FileOperation::ReadOrWrite => Errno::EINVAL,
            FileOperation::Seek => Errno::ESPIPE,
        }),
    }
}

/// `lseek` on one of our files.
pub(crate) fn seek(world: &World, file: &File) -> Answer {
    device(world, file, FileOperation::Seek)?;
    // Device files do not seek.
    Err(Errno::ESPIPE)
}

/// Closes a descriptor that libc has opened and the kernel would not have.
#[expect(unsafe_code, reason = "nobody has seen the descriptor yet")]
pub(crate) fn discard(fd: RawFd) {
    // SAFETY: it was opened just now, and is not handed out.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    debug_assert!(fd.as_raw_fd() >= 0, "a descriptor");
}
