// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The colours of the tool's output. They are always written; `main` strips them where the output
//! is not a terminal.

use anstyle::AnsiColor;
use vfio_type1::RegionKind;

/// What colours mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style;

impl Style {
    pub(crate) fn good(self) -> anstyle::Style {
        AnsiColor::Green.on_default()
    }

    pub(crate) fn bad(self) -> anstyle::Style {
        AnsiColor::Red.on_default()
    }

    pub(crate) fn warning(self) -> anstyle::Style {
        AnsiColor::Yellow.on_default()
    }

    pub(crate) fn dim(self) -> anstyle::Style {
        anstyle::Style::new().dimmed()
    }

    pub(crate) fn title(self) -> anstyle::Style {
        anstyle::Style::new().bold()
    }

    pub(crate) fn region(self, kind: RegionKind) -> anstyle::Style {
        match kind {
            RegionKind::Direct | RegionKind::Reserved => AnsiColor::Red.on_default(),
            RegionKind::DirectRelaxable => AnsiColor::Yellow.on_default(),
            RegionKind::Msi | RegionKind::SoftwareMsi => AnsiColor::Magenta.on_default(),
        }
    }
}
