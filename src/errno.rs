// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Error numbers, as Linux on x86-64 and arm64 defines them.

use std::fmt;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($number);)*

            /// The symbolic name, such as `"EINVAL"`; `None` for a number not listed here.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The error with this symbolic name; `None` for a name not listed here.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

/// A positive Linux error number. An ioctl that fails with it returns -1 and sets `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

errnos! {
    /// Operation not permitted (1).
    EPERM = 1,
    /// No such file, device node or mapping (2).
    ENOENT = 2,
    /// I/O error (5).
    EIO = 5,
    /// No such device or address (6).
    ENXIO = 6,
    /// Argument list too long (7).
    E2BIG = 7,
    /// Bad file descriptor (9).
    EBADF = 9,
    /// Cannot allocate memory, or the locked-memory limit is reached (12).
    ENOMEM = 12,
    /// Permission denied (13).
    EACCES = 13,
    /// Bad address (14).
    EFAULT = 14,
    /// Busy (16).
    EBUSY = 16,
    /// Already exists (17).
    EEXIST = 17,
    /// No such device (19).
    ENODEV = 19,
    /// Invalid argument (22).
    EINVAL = 22,
    /// Inappropriate ioctl for this file (25).
    ENOTTY = 25,
    /// No space left: the mapping limit is reached (28).
    ENOSPC = 28,
    /// Illegal seek (29).
    ESPIPE = 29,
    /// Numerical result out of range (34).
    ERANGE = 34,
    /// Resource deadlock (35).
    EDEADLK = 35,
    /// Value too large (75).
    EOVERFLOW = 75,
    /// File descriptor in bad state (77).
    EBADFD = 77,
    /// The answer is longer than the buffer (90).
    EMSGSIZE = 90,
    /// Operation not supported (95).
    EOPNOTSUPP = 95,
    /// Addresses in use (98).
    EADDRINUSE = 98,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
