// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the library inside the program is told: a file in a place of its own.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use vfio_type1::{Kernel, UnknownKernel, Vfio};

use crate::device::{AddDevicesError, DeviceSpec, Pace, PowerOnError};
use crate::host::{BootError, Host};
use crate::hosts;
use crate::known::FindError;

/// Where they are: in the `/sys` that is the program's alone.
pub const SETTINGS_FILE: &str = "/sys/kernel/vfio-sim.json";

/// What a program runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A known host, or the absolute path of a host file.
    pub host: String,
    /// The kernel's name.
    pub kernel: String,
    /// The devices placed on the host, as the command line gives them.
    pub devices: Vec<String>,
    /// Whether BARs may be mapped into the program.
    pub mmap: bool,
    /// Whether the caller had CAP_IPC_LOCK, which the limit on locked memory does not hold for.
    pub ipc_lock: bool,
    /// Where the calls are written down, a file for each process; `None` if they are not.
    pub traces: Option<PathBuf>,
}

/// Settings that no machine can be made of.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not one of settings.
    #[error("{path}: {error}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// There is no such host.
    #[error(transparent)]
    Host(#[from] FindError),
    /// There is no such kernel.
    #[error(transparent)]
    Kernel(#[from] UnknownKernel),
    /// A device cannot be placed.
    #[error(transparent)]
    Devices(#[from] AddDevicesError),
    /// No driver runs on the host.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A device cannot be switched on.
    #[error(transparent)]
    PowerOn(#[from] PowerOnError),
}

impl Settings {
    /// Writes them to a file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    /// Reads them from a file.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let unreadable = |error| SettingsError::Unreadable { path: path.to_owned(), error };
        let bytes = fs::read(path).map_err(unreadable)?;
        serde_json::from_slice(&bytes).map_err(|error| SettingsError::Malformed {
            path: path.to_owned(),
            error: error.to_string(),
        })
    }

    /// The same, wherever the program goes to: with no path that depends on the current directory.
    pub fn absolute(mut self) -> io::Result<Self> {
        let known = hosts::names().contains(&self.host.as_str());
        if !known && Path::new(&self.host).exists() {
            let path = std::path::absolute(&self.host)?;
            self.host = path.to_string_lossy().into_owned();
        }
        for text in &mut self.devices {
            // What is wrong with a device is told when it is placed.
            if let Ok(mut spec) = text.parse::<DeviceSpec>()
                && let Some(file) = spec.model.file_mut()
            {
                *file = std::path::absolute(&*file)?;
                *text = spec.to_string();
            }
        }
        Ok(self)
    }

    /// The host, with the devices placed on it.
    pub fn host(&self) -> Result<Host, SettingsError> {
        let mut host = hosts::find(&self.host)?;
        host.add_devices(&self.devices)?;
        Ok(host)
    }

    /// The kernel.
    pub fn kernel(&self) -> Result<Kernel, SettingsError> {
        Ok(self.kernel.parse()?)
    }

    /// The driver on the host.
    pub fn boot(&self) -> Result<(Host, Vfio), SettingsError> {
        let host = self.host()?;
        let vfio = host.boot(self.kernel()?)?;
        Ok((host, vfio))
    }
}

/// Whether all models on a host can be switched on: a disk's file has to be there.
pub fn check_devices(host: &Host, kernel: Kernel) -> Result<(), SettingsError> {
    let vfio = host.boot(kernel)?;
    for device in host.devices().filter(|device| device.model.is_some()) {
        host.power_on(&vfio, &device.name, Pace::Immediate)?;
    }
    Ok(())
}
