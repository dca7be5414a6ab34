// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host that this process sees, its devices, and what the process has of them.
//!
//! A process has one world, made when it first needs it. After a fork the child has none: what it has
//! inherited stays its parent's.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::RawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, getpid, getrlimit};
use vfio_sim::device::Pace;
use vfio_sim::host::Host;
use vfio_sim::render::cdevs;
use vfio_sim::run::line::Line;
use vfio_sim::run::{SETTINGS_FILE, Settings, SettingsError};
use vfio_type1::{Errno, GroupId, Process, Vaddr, Vfio};

use crate::calls::Answer;
use crate::files::{File, Files};
use crate::memory::ProcessMemory;
use crate::opened::Slot;
use crate::own::{self, Kept};
use crate::say::say;
use crate::tape::Tape;
use crate::windows::Windows;

/// A file of VFIO's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// `/dev/vfio/vfio`.
    Container,
    /// `/dev/iommu`.
    Iommufd,
    /// `/dev/vfio/N`, or `/dev/vfio/noiommu-N`.
    Group(GroupId),
    /// `/dev/vfio/devices/vfioN`: the device's place among those that have one.
    Cdev(usize),
}

/// What identifies a file, whatever path leads to it: its device and its inode.
pub(crate) type FileId = (u64, u64);

#[derive(Debug)]
pub(crate) struct World {
    /// The process that it was made in.
    pid: Pid,
    pub(crate) settings: Settings,
    host: Host,
    pub(crate) vfio: Vfio,
    pub(crate) memory: Arc<ProcessMemory>,
    pub(crate) process: Arc<Process>,
    /// The process's limit on locked memory, in bytes, as it was last looked at.
    limit: AtomicU64,
    pub(crate) windows: Arc<Windows>,
    pub(crate) files: Files,
    /// The directory `/proc/self/fd`, which may be out of reach later; `None` if it is now.
    pub(crate) descriptors: Option<Kept>,
    /// The recording, if one is wanted.
    pub(crate) tape: Option<Tape>,
    nodes: HashMap<FileId, Node>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

static WORLD: AtomicPtr<World> = AtomicPtr::new(ptr::null_mut());

/// The parent's, in a child, until it has been told that it touches what is its parent's.
static PARENTS: AtomicPtr<World> = AtomicPtr::new(ptr::null_mut());

impl World {
    /// The world, if it has been made.
    #[inline]
    #[expect(unsafe_code, reason = "a world is never freed")]
    pub(crate) fn get() -> Option<&'static Self> {
        // SAFETY: the pointer is null or that of a world that `make` has leaked.
        unsafe { WORLD.load(Ordering::Acquire).as_ref() }
    }

    /// The world, made if need be; `None` if it cannot be made.
    pub(crate) fn get_or_make() -> Option<&'static Self> {
        if let Some(world) = Self::get() {
            return Some(world);
        }
        let made = Box::into_raw(Box::new(Self::make().map_err(say).ok()?));
        // Another thread may have been faster. Then this one's is left alone: nobody has seen it.
        let _ = WORLD.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        Self::get()
    }

    /// Forgets the world, in a child that has just been made by `fork`: other threads may have left locks
    /// behind that nobody will ever open.
    pub(crate) fn forget() {
        let world = WORLD.swap(ptr::null_mut(), Ordering::AcqRel);
        if !world.is_null() {
            PARENTS.store(world, Ordering::Release);
        }
    }

    /// The parent's, if it had one.
    #[expect(unsafe_code, reason = "a world is never freed")]
    pub(crate) fn parents() -> Option<&'static Self> {
        // SAFETY: as in `get`.
        unsafe { PARENTS.load(Ordering::Acquire).as_ref() }
    }

    /// The world, if a descriptor is one of the parent's. It knows all of those from then on.
    #[cold]
    pub(crate) fn inheriting(fd: RawFd) -> Option<&'static Self> {
        let parents = Self::parents().filter(|parents| parents.files.has(fd))?;
        let world = Self::get_or_make()?;
        for fd in parents.files.between(0, RawFd::MAX) {
            parents.files.forget(fd);
            if !world.files.has(fd) {
                world.files.set(fd, Some(Arc::new(File::Inherited(fd))));
            }
        }
        Some(world)
    }

    /// Says, once, that the program has touched a BAR which its parent has mapped, if it has.
    pub(crate) fn tell_of_parents(at: Vaddr) {
        static SAID: AtomicBool = AtomicBool::new(false);
        // Another thread of the parent's may have left the list locked.
        let touched = |parents: &Self| parents.windows.find_at_once(at).is_some();
        if Self::parents().is_some_and(touched) && !SAID.swap(true, Ordering::Relaxed) {
            say(format!(
                "process {} touches at {at} a BAR that its parent mapped before the fork; open and map \
                 the device in the process that uses it",
                std::process::id()
            ));
        }
    }

    /// Whether devices have nodes of their own, as from 6.6 on.
    pub(crate) fn has_cdevs(&self) -> bool {
        self.vfio.kernel().behaviours().last_iommufd_command.is_some()
    }

    /// Whether it is this process's: a child of `vfork` has its parent's memory, and descriptors of its own.
    pub(crate) fn is_here(&self) -> bool {
        self.pid == getpid()
    }

    fn make() -> Result<Self, SettingsError> {
        let settings = Settings::load(Path::new(SETTINGS_FILE))?;
        let (host, vfio) = settings.boot()?;
        let windows = Arc::new(Windows::default());
        let memory = Arc::new(ProcessMemory::new(Arc::clone(&windows)));
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        process.set_cap_ipc_lock(settings.ipc_lock);
        let nodes = nodes(&host, &vfio);
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptors = rustix::fs::open("/proc/self/fd", directory, Mode::empty());
        let descriptors = descriptors.and_then(own::copy).ok();
        let (files, slots) = (Files::default(), Mutex::default());
        let tape = settings.traces.as_ref().and_then(|directory| {
            let started = Tape::start(directory);
            let problem = |error| {
                let directory = directory.display();
                say(format!(
                    "process {} is not recorded: {directory}: {error}; if it has given up privileges, let it open \
                     VFIO's files before",
                    std::process::id()
                ));
            };
            started.map_err(problem).ok()
        });
        vfio.set_watch(tape.is_some());
        let limit = AtomicU64::new(u64::MAX);
        let world = Self {
            pid: getpid(),
            settings,
            host,
            vfio,
            memory,
            process,
            limit,
            windows,
            files,
            tape,
            nodes,
            slots,
            descriptors,
        };
        if !world.settings.ipc_lock {
            world.note(Line::DropIpcLock, Ok(0));
        }
        world.read_limits();
        Ok(world)
    }

    /// Writes a call down, if a recording is wanted.
    pub(crate) fn note(&self, call: Line<'_>, answer: Answer) {
        if let Some(tape) = &self.tape {
            tape.write(call, answer);
        }
    }

    /// Writes down what the emulator has noticed since, if a recording is wanted: what a device did, what a
    /// container lost with its last file.
    pub(crate) fn note_findings(&self) {
        if let Some(tape) = &self.tape {
            tape.notes(self);
        }
    }

    /// A device of a group: recordings name groups by their devices.
    pub(crate) fn device_of(&self, id: GroupId) -> Option<&str> {
        let group = self.host.groups.iter().find(|group| group.id() == id)?;
        group.devices.first().map(|device| device.name.as_str())
    }

    /// Takes the process's limit on locked memory as it is now.
    pub(crate) fn read_limits(&self) {
        let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
        if limit != self.limit.swap(limit, Ordering::Relaxed) {
            self.process.set_memlock(limit);
            self.note(Line::SetMemlock(limit), Ok(0));
        }
    }

    /// The file of VFIO's that has this identity.
    pub(crate) fn node(&self, id: FileId) -> Option<Node> {
        self.nodes.get(&id).copied()
    }

    /// The device that has a node of its own in this place.
    pub(crate) fn cdev(&self, at: usize) -> Option<&str> {
        cdevs(&self.host).nth(at).map(|(_, device)| device.name.as_str())
    }

    /// A device of the host, powered on when it is first wanted.
    pub(crate) fn slot(&self, name: &str) -> Result<Arc<Slot>, Errno> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return Ok(Arc::clone(slot));
        }
        let device =
            self.host.power_on_idle(&self.vfio, name, Pace::Immediate).map_err(|error| {
                say(error);
                Errno::ENODEV
            })?;
        device.set_mmap(self.settings.mmap);
        let slot = Slot::new(device).map_err(|error| {
            say(format!("{name}: no file for the device: {error}"));
            Errno::ENOMEM
        })?;
        let slot = Arc::new(slot);
        slots.insert(name.to_owned(), Arc::clone(&slot));
        Ok(slot)
    }
}

/// The files of VFIO's that are there, by their identity.
fn nodes(host: &Host, vfio: &Vfio) -> HashMap<FileId, Node> {
    let group = |id: GroupId| (format!("/dev/vfio/{id}"), Node::Group(id));
    let fixed = [("/dev/vfio/vfio", Node::Container), ("/dev/iommu", Node::Iommufd)];
    let fixed = fixed.map(|(path, node)| (path.to_owned(), node));
    let cdevs = cdevs(host).enumerate();
    let cdevs = cdevs.map(|(at, (node, _))| (format!("/dev/vfio/devices/{node}"), Node::Cdev(at)));
    let paths = fixed.into_iter().chain(vfio.groups().map(group)).chain(cdevs);
    let known = paths.filter_map(|(path, node)| {
        let stat = rustix::fs::stat(path).ok()?;
        Some(((stat.st_dev, stat.st_ino), node))
    });
    known.collect()
}
