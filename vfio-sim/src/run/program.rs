// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program to run: where it is, and whether a preloaded library gets into it.
//!
//! The dynamic linker of glibc loads the library. A static program has no linker, musl's loads no
//! library that was made for glibc, and for a program that gains privileges the linker ignores the
//! environment.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};
use rustix::fs::{Access, access};

/// Scripts that run scripts that run scripts: Linux gives up behind this many.
const MAX_INTERPRETERS: usize = 4;

/// How much of a script's first line Linux looks at.
const SCRIPT_LINE: usize = 256;

/// A program that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not there.
    #[error("{program}: there is no such program{}", if *.searched { " in PATH" } else { "" })]
    Missing {
        /// What was asked for.
        program: String,
        /// Whether it was looked for in PATH.
        searched: bool,
    },
    /// It may not be executed, or is no file.
    #[error("{path}: cannot be executed: {error}")]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is no ELF file and no script.
    #[error("{path}: is neither an ELF program nor a script with a #! line")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// It has no dynamic linker.
    #[error(
        "{path}: is linked statically, so no library can be loaded into it; build it with a \
         dynamic glibc"
    )]
    Static {
        /// The file.
        path: PathBuf,
    },
    /// It has a dynamic linker that does not load the library.
    #[error(
        "{path}: is linked for {linker}, and the library is made for glibc on x86-64; build it for that"
    )]
    Linker {
        /// The file.
        path: PathBuf,
        /// Its dynamic linker.
        linker: String,
    },
    /// Its dynamic linker ignores what the environment asks to load.
    #[error(
        "{path}: is set-user-ID or set-group-ID, so nothing is loaded into it; copy it, which drops that"
    )]
    Privileged {
        /// The file.
        path: PathBuf,
    },
}

/// Finds a program as a shell does, and checks that the library gets into it.
pub fn find(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let found = look_up(program, path)?;
    check(&found, MAX_INTERPRETERS)?;
    Ok(found)
}

fn look_up(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let searched = !program.as_encoded_bytes().contains(&b'/');
    let missing =
        || ProgramError::Missing { program: program.to_string_lossy().into_owned(), searched };
    if !searched {
        return Path::new(program).exists().then(|| program.into()).ok_or_else(missing);
    }
    let path = path.map_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"), OsStr::to_owned);
    let places = std::env::split_paths(&path).map(|directory| directory.join(program));
    let mut files = places.filter(|place| place.is_file()).peekable();
    let first = files.peek().cloned();
    files.find(|file| access(file, Access::EXEC_OK).is_ok()).or(first).ok_or_else(missing)
}

fn check(path: &Path, interpreters: usize) -> Result<(), ProgramError> {
    let refused = |error: io::Error| ProgramError::NotExecutable { path: path.to_owned(), error };
    let metadata = path.metadata().map_err(refused)?;
    if !metadata.is_file() {
        return Err(refused(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    access(path, Access::EXEC_OK).map_err(|error| refused(error.into()))?;
    if metadata.permissions().mode() & 0o6000 != 0 {
        return Err(ProgramError::Privileged { path: path.to_owned() });
    }
    let start = match start_of(path) {
        // What may be executed may still not be readable; then Linux says what is wrong with it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        start => start.map_err(refused)?,
    };
    match interpreter(&start) {
        Some(script) if interpreters > 0 => check(&script, interpreters - 1),
        Some(_) => Err(ProgramError::Format { path: path.to_owned() }),
        None => check_elf(path, &start),
    }
}

/// As much of a file as has its ELF headers.
fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(1 << 16).read_to_end(&mut start)?;
    Ok(start)
}

/// The interpreter of a script.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(SCRIPT_LINE)];
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let name = line.split(|byte| byte.is_ascii_whitespace()).next()?;
    Some(PathBuf::from(String::from_utf8_lossy(name).into_owned()))
}

fn check_elf(path: &Path, start: &[u8]) -> Result<(), ProgramError> {
    let path = || path.to_owned();
    let bad = |_| ProgramError::Format { path: path() };
    let other = |linker: &str| ProgramError::Linker { path: path(), linker: linker.to_owned() };
    if start.get(..5) == Some(b"\x7fELF\x01") {
        return Err(other("32 bits"));
    }
    let header = elf::FileHeader64::<Endianness>::parse(start).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(other("another processor"));
    }
    let segments = header.program_headers(endian, start).map_err(bad)?;
    let linkers = segments.iter().find_map(|segment| segment.interpreter(endian, start).ok()?);
    let linker = linkers.ok_or_else(|| ProgramError::Static { path: path() })?;
    let linker = String::from_utf8_lossy(linker);
    if linker.contains("ld-linux-x86-64") { Ok(()) } else { Err(other(&linker)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn programs_are_found_as_a_shell_does() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let sh = script(place, "run-me", "#!/bin/sh\n", 0o755);
        let path = std::env::join_paths([Path::new("/nowhere"), place]).unwrap();
        assert_eq!(find(OsStr::new("run-me"), Some(&path)).unwrap(), sh);
        assert_eq!(find(sh.as_os_str(), None).unwrap(), sh);
        let missing = find(OsStr::new("run-me-not"), Some(&path)).unwrap_err();
        assert_eq!(missing.to_string(), "run-me-not: there is no such program in PATH");
        let missing = find(OsStr::new("./run-me-not"), None).unwrap_err();
        assert_eq!(missing.to_string(), "./run-me-not: there is no such program");
    }

    #[test]
    fn what_the_library_does_not_get_into_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let refusal = |path: &Path| find(path.as_os_str(), None).unwrap_err();
        let text = script(place, "text", "echo\n", 0o755);
        assert!(matches!(refusal(&text), ProgramError::Format { .. }));
        let nothing = script(place, "empty", "", 0o755);
        assert!(matches!(refusal(&nothing), ProgramError::Format { .. }));
        let set_user = script(place, "suid", "#!/bin/sh\n", 0o4755);
        assert!(matches!(refusal(&set_user), ProgramError::Privileged { .. }));
        assert!(matches!(refusal(place), ProgramError::NotExecutable { .. }));
        let round = place.join("round");
        script(place, "round", &format!("#!{}\n", round.display()), 0o755);
        assert!(matches!(refusal(&round), ProgramError::Format { .. }));
        let lost = script(place, "lost", "#!/nowhere/at/all\n", 0o755);
        let message = refusal(&lost).to_string();
        assert!(message.starts_with("/nowhere/at/all: cannot be executed"), "{message}");
        let cut = script(place, "cut", "\x7fELF\x02\x01\x01", 0o755);
        assert!(matches!(refusal(&cut), ProgramError::Format { .. }));
    }
}
