// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine that the figures are from.

use std::fs;
use std::process::Command;

/// The processor, its cores and caches, the kernel and the compiler, in a paragraph.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "Machine: {}, {cores} cores ({}), Linux {kernel}, {}.\n",
        processor(),
        caches().join(", "),
        compiler()
    )
}

/// The text of a file, or that it is not known.
fn read(path: &str) -> String {
    let text = fs::read_to_string(path).map(|text| text.trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

fn processor() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(": "));
    name.map_or("unknown processor", |(_, name)| name).to_owned()
}

/// `L1 data 32K`, for each cache of the first core.
fn caches() -> Vec<String> {
    let cache = |index: u32| {
        let part = |name| {
            let file = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
            fs::read_to_string(file).ok().map(|text| text.trim().to_lowercase())
        };
        let (level, kind, size) = (part("level")?, part("type")?, part("size")?);
        let kind = if kind == "unified" { String::new() } else { kind + " " };
        Some(format!("L{level} {kind}{}", size.to_uppercase()))
    };
    (0..).map_while(cache).collect()
}

fn compiler() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown compiler".to_owned())
}
