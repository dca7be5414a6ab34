// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that calls: its memory, its capabilities, its locked-memory account.
//!
//! Type1 charges mapped pages to the memory descriptor of the process that mapped them
//! (`vfio_lock_acct` in `vfio_iommu_type1.c`), where they show as `VmLck`. Spec 5.3.

use std::fmt;
use std::sync::Arc;

use crate::changes::MemoryChanges;
use crate::memory::Memory;
use crate::page_size::PageSize;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A process (strictly, its memory descriptor and credentials). Calls take it as the caller.
///
/// A new process is privileged: it has both capabilities and no locked-memory limit.
pub struct Process {
    memory: Arc<dyn Memory>,
    locked: AtomicU64,
    user_locked: AtomicU64,
    memlock: AtomicU64,
    ipc_lock: AtomicBool,
    sys_rawio: AtomicBool,
    alive: AtomicBool,
}

/// Where iommufd counts the pages it pins (spec 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// At the process (`VmLck`), as type1 does.
    Process,
    /// At the user that runs it.
    User,
}

/// A charge that the locked-memory limit does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{locked} pages are locked and {wanted} more would pass the limit of {limit} pages; \
     raise RLIMIT_MEMLOCK or give the process CAP_IPC_LOCK"
)]
pub struct OverMemlock {
    /// Pages locked before the call.
    pub locked: u64,
    /// Pages the call would lock in addition.
    pub wanted: u64,
    /// The limit, in whole pages.
    pub limit: u64,
}

impl Process {
    /// A privileged process with this memory.
    pub fn new(memory: Arc<dyn Memory>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            locked: AtomicU64::new(0),
            user_locked: AtomicU64::new(0),
            memlock: AtomicU64::new(u64::MAX),
            ipc_lock: AtomicBool::new(true),
            sys_rawio: AtomicBool::new(true),
            alive: AtomicBool::new(true),
        })
    }

    /// Its memory.
    pub fn memory(&self) -> &dyn Memory {
        &*self.memory
    }

    /// The epoch of its memory; 0 for memory that cannot tell.
    pub(crate) fn memory_epoch(&self) -> u32 {
        self.memory.changes().map_or(0, MemoryChanges::epoch)
    }

    /// Sets RLIMIT_MEMLOCK, in bytes. Counts rounded down to pages, from the next MAP on.
    pub fn set_memlock(&self, bytes: u64) {
        self.memlock.store(bytes, Ordering::Relaxed);
    }

    /// Gives or takes CAP_IPC_LOCK, which exempts mappings made with it from the limit.
    pub fn set_cap_ipc_lock(&self, has: bool) {
        self.ipc_lock.store(has, Ordering::Relaxed);
    }

    /// Whether it has CAP_IPC_LOCK.
    pub fn cap_ipc_lock(&self) -> bool {
        self.ipc_lock.load(Ordering::Relaxed)
    }

    /// Gives or takes CAP_SYS_RAWIO, which noiommu groups need.
    pub fn set_cap_sys_rawio(&self, has: bool) {
        self.sys_rawio.store(has, Ordering::Relaxed);
    }

    /// Whether it has CAP_SYS_RAWIO.
    pub fn cap_sys_rawio(&self) -> bool {
        self.sys_rawio.load(Ordering::Relaxed)
    }

    /// Its locked pages (`VmLck` divided by the page size).
    pub fn locked_pages(&self) -> u64 {
        self.locked.load(Ordering::Relaxed)
    }

    /// Counts pages locked by other means, such as `mlock`; they share the account.
    pub fn lock_pages(&self, pages: u64) {
        self.locked.fetch_add(pages, Ordering::Relaxed);
    }

    /// Takes pages off the account, as [`Self::lock_pages`] put them on it.
    pub fn unlock_pages(&self, pages: u64) {
        let _ = self.locked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |locked| {
            Some(locked.saturating_sub(pages))
        });
    }

    /// Pages that iommufd has charged to its user. Each process is the only one of its user here.
    pub fn user_locked_pages(&self) -> u64 {
        self.user_locked.load(Ordering::Relaxed)
    }

    /// Ends the process. Its mappings live on in their containers, but can no longer be pinned or
    /// written through, and nobody is credited when they go (spec 2.7, 5.3).
    pub fn exit(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    /// Whether it has not exited.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether `wanted` more pages fit, with the limit looked at unless `exempt`.
    pub(crate) fn check_charge(
        &self,
        wanted: u64,
        exempt: bool,
        page: PageSize,
    ) -> Result<(), OverMemlock> {
        let locked = self.locked_pages();
        let limit = self.memlock.load(Ordering::Relaxed) >> page.shift();
        if exempt || wanted == 0 || locked.saturating_add(wanted) <= limit {
            return Ok(());
        }
        Err(OverMemlock { locked, wanted, limit })
    }

    /// Charges pages that iommufd has pinned, with the limit looked at.
    pub(crate) fn charge(
        &self,
        account: Account,
        pages: u64,
        page: PageSize,
    ) -> Result<(), OverMemlock> {
        let locked = self.account(account).load(Ordering::Relaxed);
        let limit = self.memlock.load(Ordering::Relaxed) >> page.shift();
        if pages != 0 && locked.saturating_add(pages) > limit {
            return Err(OverMemlock { locked, wanted: pages, limit });
        }
        self.account(account).fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Takes pages off the account that [`Self::charge`] put them on, if there still is one.
    pub(crate) fn discharge(&self, account: Account, pages: u64) {
        if account == Account::Process && !self.is_alive() {
            return;
        }
        let _ =
            self.account(account).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |locked| {
                Some(locked.saturating_sub(pages))
            });
    }

    fn account(&self, account: Account) -> &AtomicU64 {
        match account {
            Account::Process => &self.locked,
            Account::User => &self.user_locked,
        }
    }

    /// Takes a mapping's pages off the account, if there still is one.
    pub(crate) fn uncharge(&self, pages: u64) {
        if self.is_alive() {
            self.unlock_pages(pages);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("locked_pages", &self.locked_pages())
            .field("memlock", &self.memlock.load(Ordering::Relaxed))
            .field("cap_ipc_lock", &self.cap_ipc_lock())
            .field("cap_sys_rawio", &self.cap_sys_rawio())
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}
