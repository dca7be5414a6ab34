// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run --host-matrix`: the program once on each known host.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::flag;
use vfio_sim::host::Host;
use vfio_sim::hosts;
use vfio_sim::run::{check_devices, recording, report};
use vfio_type1::Kernel;

use super::super::{REFUSED, Stop};
use super::supervise::{FORWARDED, Output, recorded};
use super::{RunArguments, find_program, no_program, settings};

/// How a program fared on a host.
struct Row {
    host: &'static str,
    /// Its exit status; `None` if it could not be tried, or used no VFIO.
    status: Option<u8>,
    /// What was refused first, or what the program said last, or why it could not be tried.
    reason: String,
}

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, Stop> {
    if let Err(error) = find_program(arguments) {
        return Ok(no_program(&error));
    }
    let mut out = anstream::stdout().lock();
    let names = hosts::names();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let (mut tried, mut failed) = (0, 0);
    let asked = asked_to_end()?;
    for host in names {
        let row = attempt(arguments, host)?;
        // What asks the tool to end has ended one program, and is not for the next one.
        if let signal @ 1.. = asked.load(Ordering::Relaxed) {
            return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
        }
        let verdict = match row.status {
            Some(0) => "works".to_owned(),
            Some(status) => format!("exit {status}"),
            None => "not tried".to_owned(),
        };
        let line = format!("{:<width$}  {verdict:<9}  {}", row.host, row.reason);
        writeln!(out, "{}", line.trim_end())?;
        tried += u32::from(row.status.is_some());
        failed += u32::from(row.status.is_some_and(|status| status != 0));
    }
    writeln!(out, "fails on {failed} of {tried} hosts")?;
    Ok(ExitCode::from(if failed == 0 && tried > 0 { 0 } else { REFUSED }))
}

/// The last signal that asked the tool to end; 0 for none.
fn asked_to_end() -> std::io::Result<Arc<AtomicUsize>> {
    let asked = Arc::new(AtomicUsize::new(0));
    for signal in FORWARDED {
        let number = usize::try_from(signal).unwrap_or_default();
        flag::register_usize(signal, Arc::clone(&asked), number)?;
    }
    Ok(asked)
}

fn attempt(arguments: &RunArguments, name: &'static str) -> Result<Row, Stop> {
    let not_tried = |reason: String| Row { host: name, status: None, reason };
    let settings = settings(arguments, name)?;
    let kernel = settings.kernel().map_err(Stop::bad)?;
    // A device may have no place on a host.
    let host = match settings.host() {
        Ok(host) => host,
        Err(error) => return Ok(not_tried(error.to_string())),
    };
    if let Err(error) = check_devices(&host, kernel) {
        return Ok(not_tried(error.to_string()));
    }
    let mut errors = tempfile::tempfile()?;
    let output = Output::Errors(errors.try_clone()?);
    match recorded(arguments, name, &host, kernel, output) {
        // A wrapper that finds no program to run would work anywhere.
        Ok((0, texts)) if texts.is_empty() => {
            Ok(not_tried("the program opened no file of VFIO's".to_owned()))
        }
        Ok((0, _)) => Ok(Row { host: name, status: Some(0), reason: String::new() }),
        Ok((status, texts)) => {
            let refused = first_refusal(&texts, &host, kernel);
            let reason = refused.or_else(|| last_line(&mut errors)).unwrap_or_default();
            Ok(Row { host: name, status: Some(status), reason })
        }
        Err(error) => Ok(not_tried(error)),
    }
}

fn first_refusal(texts: &[String], host: &Host, kernel: Kernel) -> Option<String> {
    texts.iter().find_map(|text| {
        let report = report::report(&recording::parse(text).ok()?, host, kernel).ok()?;
        report.refusals.into_iter().next().map(|refusal| refusal.rule)
    })
}

fn last_line(errors: &mut File) -> Option<String> {
    let mut said = Vec::new();
    errors.seek(SeekFrom::Start(0)).ok()?;
    errors.read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said);
    said.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}
