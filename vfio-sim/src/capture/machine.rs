// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What holds for the whole machine: its kernel, its page, whether MSIs are isolated.

use vfio_type1::{DEFAULT_DMA_ENTRY_LIMIT, Kernel, PageSize};

use super::group::CapturedGroup;
use super::log::Log;
use super::release::{kernel, version};
use super::source::Source;
use super::unit::CapturedUnit;
use crate::host::{Host, HostIommu};

/// What holds for the whole machine.
pub(super) struct Machine<'a> {
    /// Its boot log.
    pub(super) log: &'a Log,
    /// What `uname -r` says.
    pub(super) release: String,
    /// The known kernel that is most like it.
    pub(super) kernel: Kernel,
    /// The CPU's page, if it is known.
    pub(super) page_size: Option<PageSize>,
    /// Whether MSIs are isolated, if it is known.
    pub(super) isolated_msi: Option<bool>,
    allow_unsafe_interrupts: bool,
    dma_entry_limit: u32,
    description: Option<String>,
}

impl<'a> Machine<'a> {
    pub(super) fn read(log: &'a Log, source: &mut Source) -> Self {
        let release = source.line("proc/sys/kernel/osrelease").or_else(|| log.release());
        let release = release.unwrap_or_default();
        let kernel = known_kernel(&release, source);
        let type1 = |parameter| format!("sys/module/vfio_iommu_type1/parameters/{parameter}");
        let limit = source.line(&type1("dma_entry_limit")).and_then(|limit| limit.parse().ok());
        let auxiliary = if source.live { source.bytes("proc/self/auxv") } else { None };
        Self {
            log,
            kernel,
            page_size: auxiliary.and_then(|vector| page_size(&vector)).or_else(|| log.page_size()),
            isolated_msi: isolates_msis(log, source),
            allow_unsafe_interrupts: source
                .line(&type1("allow_unsafe_interrupts"))
                .is_some_and(|it| it == "Y"),
            dma_entry_limit: limit.unwrap_or(DEFAULT_DMA_ENTRY_LIMIT),
            description: product(source),
            release,
        }
    }

    /// Major and minor number of its kernel.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        version(&self.release)
    }

    /// The host, without regions.
    pub(super) fn host(&self, units: &[CapturedUnit], groups: &[CapturedGroup]) -> Host {
        let iommus: Vec<HostIommu> = units.iter().map(|unit| unit.iommu.clone()).collect();
        let count = groups.len();
        let plural = if count == 1 { "" } else { "s" };
        let described = || format!("a captured machine with {count} group{plural}");
        Host {
            name: "captured".to_owned(),
            description: self.description.clone().unwrap_or_else(described),
            source: format!("vfio-sim capture, Linux {}", self.release),
            page_size: self.page_size.unwrap_or(PageSize::P4K),
            allow_unsafe_interrupts: self.allow_unsafe_interrupts,
            dma_entry_limit: self.dma_entry_limit,
            reserve_dma_masks: false,
            iommus,
            groups: groups.iter().map(|group| group.group.clone()).collect(),
            bridges: Vec::new(),
        }
    }
}

fn known_kernel(release: &str, source: &mut Source) -> Kernel {
    match kernel(release) {
        Some((kernel, true)) => kernel,
        Some((kernel, false)) => {
            source.note(format!("kernel {release} is not known: taken for {kernel}"));
            kernel
        }
        None => {
            let newest = Kernel::NEWEST;
            source.note(format!("neither /proc nor the log tells the kernel: taken for {newest}"));
            newest
        }
    }
}

/// The page of the auxiliary vector (`AT_PAGESZ`), which is pairs of machine words.
fn page_size(vector: &[u8]) -> Option<PageSize> {
    const PAGE_SIZE: usize = 6;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.try_into().ok()?));
    let mut pairs = vector.chunks_exact(2 * WORD);
    let pair = pairs.find(|pair| word(&pair[..WORD]) == Some(PAGE_SIZE))?;
    PageSize::new(word(&pair[WORD..])? as u64).filter(|page| *page >= PageSize::P4K)
}

/// What the log says, else the names of interrupt controllers, which anybody may read: behind
/// interrupt remapping they begin with `IR-`, behind an ITS with `ITS-`.
fn isolates_msis(log: &Log, source: &mut Source) -> Option<bool> {
    if log.isolates_msis() {
        return Some(true);
    }
    let interrupts = source.text("proc/interrupts").unwrap_or_default();
    let controller = |head: &str| interrupts.split_whitespace().any(|word| word.starts_with(head));
    if controller("IR-") || controller("ITS-") {
        return Some(true);
    }
    (log.is_complete() || controller("PCI-MSI")).then_some(false)
}

/// What the firmware calls the machine.
fn product(source: &mut Source) -> Option<String> {
    let vendor = source.line("sys/class/dmi/id/sys_vendor");
    let product = source.line("sys/class/dmi/id/product_name");
    let words: Vec<String> =
        [vendor, product].into_iter().flatten().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}
