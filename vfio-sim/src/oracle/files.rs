// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sections 1 and 2: containers and groups as files.

use vfio_type1::{Binding, Errno, IommuDriver};

use super::devices::Device;
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::type1::{OracleMapping, Type1, Version};
use super::{Host, Oracle, Process};

/// A container, open or not.
#[derive(Debug, Default)]
pub(super) struct Container {
    /// In the order in which they were added.
    pub(super) groups: Vec<usize>,
    pub(super) driver: Driver,
}

#[derive(Debug, Default)]
pub(super) enum Driver {
    #[default]
    Unset,
    NoIommu,
    Type1(Type1),
}

/// What is open of a group.
#[derive(Debug, Default)]
pub(super) struct GroupFile {
    /// Its own file has a descriptor.
    open: bool,
    pub(super) devices: Vec<Device>,
    pub(super) container: Option<usize>,
}

impl GroupFile {
    /// 2.1: devices hold a reference to the file.
    fn in_use(&self) -> bool {
        self.open || !self.devices.is_empty()
    }
}

/// What a descriptor given to SET_CONTAINER refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A container.
    Container(usize),
    /// Nothing: it is not open.
    Closed,
    /// Some other file.
    Other,
}

impl Oracle {
    /// Opens `/dev/vfio/vfio`. A container is never closed: that has no effect (2.7).
    pub fn open_container(&mut self) -> usize {
        self.containers.push(Container::default());
        self.containers.len() - 1
    }

    /// 2.1.
    pub fn open_group(&mut self, group: usize, caller: usize) -> Answer<()> {
        let facts = &self.host.groups[group];
        if !facts.devices.iter().any(|(_, binding)| *binding == Binding::Vfio) {
            return refuse("NoNode", Errno::ENOENT);
        }
        if facts.is_noiommu() && !self.processes[caller].sys_rawio {
            return refuse("NeedsRawIo", Errno::EPERM);
        }
        if self.files[group].in_use() {
            return refuse("AlreadyOpen", Errno::EBUSY);
        }
        self.files[group].open = true;
        Ok(())
    }

    /// Closes the last descriptor of a group (2.7).
    pub fn close_group(&mut self, group: usize) {
        self.files[group].open = false;
        self.leave_if_closed(group);
    }

    pub(super) fn leave_if_closed(&mut self, group: usize) {
        if !self.files[group].in_use() {
            self.leave(group);
        }
    }

    /// 2.3: VIABLE and CONTAINER_SET.
    pub fn status(&self, group: usize) -> (bool, bool) {
        let set = self.files[group].container.is_some();
        let owned = self.host.groups[group].kernel_owned();
        (if self.host.release.from(5, 19) { set || !owned } else { !owned }, set)
    }

    /// 2.4.
    pub fn set_container(
        &mut self,
        group: usize,
        caller: usize,
        fd: i32,
        target: Target,
    ) -> Answer<()> {
        let release = self.host.release;
        let set = self.files[group].container.is_some();
        let lacks_rawio = self.host.groups[group].is_noiommu() && !self.processes[caller].sys_rawio;
        if fd < 0 {
            let errno = if release.up_to(5, 18) { Errno::EINVAL } else { Errno::EBADF };
            return refuse("NegativeFd", errno);
        }
        if target == Target::Closed && release.from(5, 19) {
            return refuse("BadFd", Errno::EBADF);
        }
        if set {
            return refuse("AlreadySet", Errno::EINVAL);
        }
        if lacks_rawio && release.up_to(5, 18) {
            return refuse("NeedsRawIo", Errno::EPERM);
        }
        let container = match target {
            Target::Container(container) => container,
            Target::Closed => return refuse("BadFd", Errno::EBADF),
            Target::Other if release.from(6, 2) => return refuse("NotAContainer", Errno::EBADFD),
            Target::Other => return refuse("NotAContainer", Errno::EINVAL),
        };
        // 5a.
        if lacks_rawio {
            return refuse("NeedsRawIo", Errno::EPERM);
        }
        self.add_group(container, group, caller).map_err(|error| error.inside("Refused"))
    }

    /// 2.4 steps 5b to 5e.
    fn add_group(&mut self, container: usize, group: usize, caller: usize) -> Answer<()> {
        let Self { host, processes, containers, files } = self;
        let facts = &host.groups[group];
        let other = containers[container].groups.first().map(|other| &host.groups[*other]);
        // b.
        if other.is_some_and(|other| other.is_noiommu() != facts.is_noiommu()) {
            return refuse("MixedKinds", Errno::EPERM);
        }
        // c.
        host.claim(group)?;
        // d.
        if let Driver::Type1(type1) = &mut containers[container].driver {
            let attached = type1.attach(host, processes, group, caller);
            attached.map_err(|error| error.inside("Attach"))?;
        }
        // e.
        containers[container].groups.push(group);
        files[group].container = Some(container);
        Ok(())
    }

    /// 2.5.
    pub fn unset_container(&mut self, group: usize) -> Answer<()> {
        let file = &self.files[group];
        if file.container.is_none() {
            return refuse("NotSet", Errno::EINVAL);
        }
        if !file.devices.is_empty() {
            let count = file.devices.iter().map(|_| 1).sum();
            return refuse_with("DevicesOpen", Errno::EBUSY, [count]);
        }
        self.leave(group);
        Ok(())
    }

    /// 3.7, and the end of the instance with the last group.
    fn leave(&mut self, group: usize) {
        let Self { host, processes, containers, files } = self;
        let Some(container) = files[group].container.take() else { return };
        let Container { groups, driver } = &mut containers[container];
        groups.retain(|member| *member != group);
        if let Driver::Type1(type1) = driver {
            type1.detach(host, processes, group);
            if groups.is_empty() {
                type1.remove_all(processes);
            }
        }
        if groups.is_empty() {
            *driver = Driver::Unset;
        }
    }

    /// 1.4.
    pub fn set_iommu(&mut self, container: usize, caller: usize, kind: u64) -> Answer<()> {
        let Self { host, processes, containers, .. } = self;
        let Container { groups, driver } = &mut containers[container];
        // 1.
        if groups.is_empty() {
            return refuse("NoGroup", Errno::EINVAL);
        }
        if !matches!(driver, Driver::Unset) {
            return refuse("AlreadySet", Errno::EINVAL);
        }
        // 2.
        if groups.iter().any(|group| host.groups[*group].is_noiommu()) {
            host.check_noiommu(&processes[caller], kind)?;
            *driver = Driver::NoIommu;
            return Ok(());
        }
        if !host.type1_extension(kind) {
            return refuse("UnknownType", Errno::ENODEV);
        }
        let version = match kind {
            1 => Version::V1,
            3 => Version::V2,
            6 => Version::Nesting,
            _ => return refuse("NotAType", Errno::EINVAL),
        };
        let mut type1 = Type1::new(version, host.dma_entry_limit);
        for group in groups.iter().rev() {
            let attached = type1.attach(host, processes, *group, caller);
            attached.map_err(|error| error.inside("Attach"))?;
        }
        *driver = Driver::Type1(type1);
        Ok(())
    }

    /// 1.3.
    pub fn check_extension(&self, container: usize, id: u64) -> bool {
        let host = &self.host;
        let Container { groups, driver } = &self.containers[container];
        let noiommu_group = groups.first().map(|group| host.groups[*group].is_noiommu());
        match driver {
            Driver::Unset => {
                (noiommu_group != Some(true) && host.type1_extension(id))
                    || (noiommu_group != Some(false) && host.noiommu_extension(id))
            }
            Driver::NoIommu => host.noiommu_extension(id),
            Driver::Type1(type1) => match id {
                4 => type1.domains.iter().all(|domain| domain.iommu.enforces_coherency()),
                10 => host.release.from(5, 12) && type1.emulated.is_empty(),
                _ => host.type1_extension(id),
            },
        }
    }

    /// The groups of a container, in the order in which they were added.
    pub fn groups(&self, container: usize) -> Vec<usize> {
        self.containers[container].groups.clone()
    }

    /// The live mappings, ascending.
    pub fn mappings(&self, container: usize) -> Vec<OracleMapping> {
        match &self.containers[container].driver {
            Driver::Type1(type1) => {
                type1.mappings.iter().map(super::type1::Mapping::visible).collect()
            }
            _ => Vec::new(),
        }
    }

    /// 1.2: an IOMMU request needs a type1 driver.
    pub(super) fn type1(
        &mut self,
        container: usize,
    ) -> Answer<(&Host, &mut [Process], &mut Type1)> {
        let unset = || Refusal::new("Unset", Errno::EINVAL).inside("NoType1");
        let noiommu = || Refusal::new("NoIommu", Errno::ENOTTY).inside("NoType1");
        match &mut self.containers[container].driver {
            Driver::Unset => Err(unset()),
            Driver::NoIommu => Err(noiommu()),
            Driver::Type1(type1) => Ok((&self.host, &mut self.processes, type1)),
        }
    }
}

impl Host {
    /// 2.4, ownership claim.
    fn claim(&self, group: usize) -> Answer<()> {
        let facts = &self.groups[group];
        let (Some(iommu), true) = (facts.iommu(), self.release.from(5, 19)) else { return Ok(()) };
        if facts.kernel_owned() {
            return refuse("KernelOwned", Errno::EPERM);
        }
        if facts.direct && self.release.from(6, 6) {
            return refuse("DirectRegion", Errno::EINVAL);
        }
        if facts.direct && iommu.driver() == IommuDriver::IntelVtd && self.release.up_to(6, 5) {
            return refuse("DirectRegion", Errno::EPERM);
        }
        Ok(())
    }

    /// 1.4 step 2, 7.5.
    fn check_noiommu(&self, caller: &Process, kind: u64) -> Answer<()> {
        if !self.noiommu_extension(kind) {
            return refuse("UnknownType", Errno::ENODEV);
        }
        if !caller.sys_rawio {
            return refuse("NeedsRawIo", Errno::EPERM);
        }
        Ok(())
    }

    /// 1.3, "type1, no instance".
    fn type1_extension(&self, id: u64) -> bool {
        match id {
            1 | 3 => true,
            6 => self.release.up_to(6, 12),
            9 => self.release.from(5, 12),
            _ => false,
        }
    }

    fn noiommu_extension(&self, id: u64) -> bool {
        id == 8 && self.noiommu_mode
    }
}
