// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine that this runs on: its kernel, its groups, and which of them VFIO has.

use std::fs;
use std::io;
use std::path::Path;

use super::RecordError;
use crate::trace::write::SysfsGroup;
use crate::trace::{Call, Trace};

/// Where the groups are.
const GROUPS: &str = "/sys/kernel/iommu_groups";

/// The file of containers.
pub(super) const CONTAINER: &str = "/dev/vfio/vfio";

/// The iommufd's file.
pub(super) const IOMMUFD: &str = "/dev/iommu";

/// What was there when the recorder started.
#[derive(Debug)]
pub(super) struct LocalMachine {
    /// `uname -r`.
    pub(super) release: String,
    /// By number.
    pub(super) groups: Vec<SysfsGroup>,
}

impl LocalMachine {
    pub(super) fn new() -> Result<Self, RecordError> {
        match fs::OpenOptions::new().read(true).write(true).open(CONTAINER) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordError::NoVfio);
            }
            Err(error) => return Err(unreadable(CONTAINER, error)),
        }
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let groups = groups()?;
        if groups.is_empty() {
            return Err(RecordError::NoGroups);
        }
        Ok(Self { release, groups })
    }

    /// The file of a device's group; `None` if no group has the device.
    pub(super) fn group_file(&self, device: &str) -> Option<String> {
        if let Some(name) = device.strip_prefix("noiommu:") {
            return Some(format!("/dev/vfio/noiommu-{}", self.group(name)?.number));
        }
        Some(format!("/dev/vfio/{}", self.group(device)?.number))
    }

    /// The text of `reserved_regions` of a device's group, as it is now.
    pub(super) fn regions(&self, device: &str) -> Option<String> {
        fs::read_to_string(format!("{GROUPS}/{}/reserved_regions", self.group(device)?.number)).ok()
    }

    /// The devices that a program can use: bound to a VFIO driver, in a group with a file.
    pub(super) fn usable_devices(&self) -> Vec<String> {
        let all = self.groups.iter().flat_map(|group| &group.devices);
        let bound = |device: &&String| driver(device).starts_with("vfio");
        let has_file = |device: &&String| {
            self.group_file(device).is_some_and(|file| Path::new(&file).exists())
        };
        all.filter(bound).filter(has_file).cloned().collect()
    }

    /// Whether every group that a script opens is there to be opened.
    pub(super) fn check(&self, script: &Trace) -> Result<(), RecordError> {
        for recorded in &script.calls {
            let Call::OpenGroup(_, device) = recorded.call else { continue };
            let (line, device) = (recorded.line, script.text(device));
            let Some(file) = self.group_file(device) else {
                return Err(RecordError::NoSuchDevice { line, device: device.to_owned() });
            };
            if !Path::new(&file).exists() {
                let driver = driver(device);
                return Err(RecordError::NotBound { line, device: device.to_owned(), driver });
            }
            // Whoever may not open a group by its mode may not open any.
            rustix::fs::access(&*file, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
                .map_err(|error| unreadable(&file, error.into()))?;
        }
        Ok(())
    }

    fn group(&self, device: &str) -> Option<&SysfsGroup> {
        self.groups.iter().find(|group| group.devices.iter().any(|name| name == device))
    }
}

/// What a device is bound to, for people.
fn driver(device: &str) -> String {
    let link = |bus: &str| fs::read_link(format!("/sys/bus/{bus}/devices/{device}/driver")).ok();
    let target = link("pci").or_else(|| link("mdev"));
    let name = target.as_deref().and_then(Path::file_name);
    name.map_or("no driver".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn groups() -> Result<Vec<SysfsGroup>, RecordError> {
    let mut numbers: Vec<u32> =
        names(GROUPS)?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let group = |number: u32| {
        let mut devices = names(&format!("{GROUPS}/{number}/devices"))?;
        devices.sort_unstable();
        let path = format!("{GROUPS}/{number}/reserved_regions");
        let regions = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        Ok(SysfsGroup { number, devices, regions })
    };
    numbers.into_iter().map(group).collect()
}

/// The names in a directory; none if it is not there.
fn names(path: &str) -> Result<Vec<String>, RecordError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| unreadable(path, error))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        Ok(entry.map_err(|error| unreadable(path, error))?.file_name().to_string_lossy().into())
    };
    entries.map(name).collect()
}

pub(super) fn unreadable(path: &str, error: io::Error) -> RecordError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => RecordError::NotPermitted { path: path.to_owned() },
        _ => RecordError::Unreadable { path: path.to_owned(), error },
    }
}
