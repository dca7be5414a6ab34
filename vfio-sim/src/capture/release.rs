// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels by what `uname -r` says.

use vfio_type1::Kernel;

/// Major and minor number of a release such as `6.12.107-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..end].parse().ok()?))
}

/// The known kernel that behaves like a release: the newest one that is not newer. `exact` is false
/// if the release is not one of the known ones.
pub(super) fn kernel(release: &str) -> Option<(Kernel, bool)> {
    if release.ends_with(Kernel::SERIES_2018_V6.name()) {
        return Some((Kernel::SERIES_2018_V6, true));
    }
    let version_of_release = version(release)?;
    let mut known =
        Kernel::ALL.iter().filter_map(|kernel| Some((version(kernel.name())?, *kernel)));
    let newest = known.rfind(|(version, _)| *version <= version_of_release);
    match newest {
        Some((version, kernel)) => Some((kernel, version == version_of_release)),
        None => Some((Kernel::V4_19, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_behave_like_the_newest_kernel_before_them() {
        for (release, name, exact) in [
            ("6.12.107-amd64", "6.12", true),
            ("6.6.0-rc1+", "6.1", false),
            ("7.3.4", "7.3", true),
            ("8.0", "7.3", false),
            ("3.10.0-1160.el7.x86_64", "4.19", false),
            ("4.16.0-2018-v6", "2018-v6", true),
        ] {
            let (found, is_exact) = kernel(release).unwrap();
            assert_eq!((found.name(), is_exact), (name, exact), "{release}");
        }
        for text in ["", "linux", "6", "6.", ".1"] {
            assert!(kernel(text).is_none(), "{text}");
        }
    }
}
