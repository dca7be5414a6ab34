// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tool and the programs that it runs: where they are, and how each is made if it is not there yet.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use tempfile::TempDir;

/// Where the tests put a device.
pub(crate) const ADDRESS: &str = "0000:01:00.0";

/// The tool, the library that it loads, and a program.
const PARTS: [&str; 3] = ["vfio-sim", "libvfio_preload.so", "vfio-client"];

/// The directory that cargo builds into.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

/// `vfio-sim`, as it is in the sources.
pub(crate) fn vfio_sim() -> PathBuf {
    ours("vfio-sim")
}

/// `vfio-sim`, with what belongs beside it, where every user can reach it: a clone may be in a directory that is
/// closed.
pub(crate) fn for_everybody() -> PathBuf {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = open_directory();
        for file in PARTS {
            fs::copy(vfio_sim().with_file_name(file), place.path().join(file)).unwrap();
        }
        place
    });
    place.path().join("vfio-sim")
}

/// A directory that every user may write to.
pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// `clients/`: an ordinary VFIO program.
pub(crate) fn vfio_client() -> PathBuf {
    ours("vfio-client")
}

/// A program of this workspace. `cargo test --workspace` builds programs, but not a library that nothing is linked
/// with; `cargo test -p vfio-preload` builds none.
fn ours(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if !PARTS.iter().all(|name| is_fresh(&built().join(name))) {
            build();
        }
    });
    built().join(name)
}

/// Whether a program is as new as all that it was built from, which cargo lists beside it.
fn is_fresh(program: &Path) -> bool {
    let changed = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let Some(built) = changed(program) else { return false };
    let listed = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let Some((_, sources)) = listed.split_once(": ") else { return false };
    // A space in a path is written as "\ ": such a file is not found, and the program is built.
    sources
        .split_whitespace()
        .all(|source| changed(Path::new(source)).is_some_and(|at| at <= built))
}

fn build() {
    let built = built();
    let profile = match built.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        name => name,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "vfio-sim", "-p", "vfio-preload", "-p", "vfio-client"])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(built.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "what the tests run does not build");
}

/// A program of `tests/programs`, compiled. `None`, and the reason on stderr, where there is no C compiler.
pub(crate) fn compiled(name: &str) -> Option<PathBuf> {
    made(name, "c", &["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"])
}

/// A library of `tests/programs`, for `LD_PRELOAD`.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    made(name, "c", &["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
}

/// Code of `tests/programs` for a machine without an operating system, which puts it at an address.
pub(crate) fn linked(name: &str, at: u32) -> Option<PathBuf> {
    let place = format!("-Wl,--oformat=binary,--build-id=none,-Ttext={at:#x}");
    made(name, "S", &["-nostdlib", "-static", "-no-pie", &place])
}

/// What the compiler makes of a source, once.
fn made(name: &str, kind: &str, options: &[&str]) -> Option<PathBuf> {
    static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !made.contains(&target) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name);
        let source = source.with_extension(kind);
        match Command::new("cc").args(options).arg("-o").arg(&target).arg(source).output() {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => return skip(&format!("there is no C compiler: cc: {error}")),
        }
        made.insert(target.clone());
    }
    Some(target)
}

/// A program of the machine's.
pub(crate) fn installed(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file());
    found
        .or_else(|| skip(&format!("{name} is not installed; install the Debian package {package}")))
}

/// A program that `vfio-sim/tests/programs/SCRIPT.sh` brings, into `$VFIO_PROGRAMS` or `target/programs`.
pub(crate) fn brought(script: &str, name: &str) -> Option<PathBuf> {
    let in_target = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs");
    let programs = std::env::var_os("VFIO_PROGRAMS").map_or_else(in_target, PathBuf::from);
    let directory = programs.join(script);
    let program = directory.join("bin").join(name);
    if program.is_file() {
        return Some(program);
    }
    let directory = directory.display();
    skip(&format!("no {name}; bring it with vfio-sim/tests/programs/{script}.sh {directory}"))
}

/// Says why a test is not run, past the test's captured output.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped {}: {reason}", test.name().unwrap_or_default());
    None
}
