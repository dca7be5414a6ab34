// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layout files: what a program maps, in TOML. `vfio-sim/LAYOUTS.md` explains the format.

use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;
use vfio_type1::{IovaRange, Kernel};

use crate::host::age;
use crate::layout::{Expectation, Layout, RangeKind, Step, Type1, WantedRange, parse_mappable};
use crate::number::{Number, Text};
use crate::toml_file::{self, FileError, Problem};
use crate::verdict::Verdict;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    description: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    range: Vec<Range>,
    steps: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    expect: Vec<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Range {
    name: Spanned<String>,
    kind: Spanned<Text<Kind>>,
    range: Spanned<String>,
    piece: Option<Spanned<Number>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Expect {
    verdict: Verdict,
    hosts: Spanned<Vec<String>>,
    from: Option<Text<Kernel>>,
    until: Option<Spanned<Text<Kernel>>>,
    why: Option<String>,
}

struct Kind(RangeKind);

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = RangeKind::NAMES.iter().find(|(name, _)| *name == text);
        let kind = known.map(|(_, kind)| Self(*kind));
        kind.ok_or_else(|| format!("unknown kind \"{text}\"; known are ram, bar, rom"))
    }
}

/// Reads a layout file.
pub fn load(path: &Path) -> Result<Layout, FileError> {
    toml_file::load(path, parse)
}

/// Parses the text of a layout file. `name` becomes the layout's, `file` stands in errors.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Layout, FileError> {
    let layout = toml_file::parse(file, text, build)?;
    Ok(Layout { name: name.to_owned(), ..layout })
}

fn build(file: File) -> Result<Layout, Problem> {
    if file.range.is_empty() {
        return Err(Problem::nowhere("the layout has no [[range]]"));
    }
    let mut ranges: Vec<WantedRange> = Vec::new();
    for range in &file.range {
        let wanted = wanted(range)?;
        if ranges.iter().any(|known| known.name == wanted.name) {
            let problem = format!("two ranges have the name \"{}\"", wanted.name);
            return Err(Problem::at(&range.name, problem));
        }
        ranges.push(wanted);
    }
    let expectations = file.expect.into_iter().map(expectation).collect::<Result<_, _>>()?;
    let mut layout = Layout { expectations, ..Layout::plain(ranges) };
    layout.description = file.description;
    layout.source = file.source;
    if let Some(steps) = &file.steps {
        if steps.get_ref().is_empty() {
            return Err(Problem::at(steps, "a program does something; name its steps"));
        }
        let steps = steps.get_ref();
        let read = |text: &Spanned<String>| {
            step(text.get_ref(), &layout.ranges).map_err(|problem| Problem::at(text, problem))
        };
        layout.steps = steps.iter().map(read).collect::<Result<_, _>>()?;
        layout.states_steps = true;
    }
    Ok(layout)
}

/// The most pieces of a range: many times the limit on mappings.
const MAX_PIECES: u64 = 1 << 20;

fn wanted(range: &Range) -> Result<WantedRange, Problem> {
    let name = range.name.get_ref();
    if name.is_empty() || name.contains(char::is_whitespace) {
        let problem = "a range needs a name without spaces, such as \"ram\"".to_owned();
        return Err(Problem::at(&range.name, problem));
    }
    let addresses = parse_mappable(range.range.get_ref())
        .map_err(|error| Problem::at(&range.range, error.to_string()))?;
    let kind = range.kind.get_ref().0.0;
    let piece = range.piece.as_ref().map(|piece| match piece.get_ref().0 {
        0 => Err(Problem::at(piece, "a piece has at least one byte, such as \"2M\"".to_owned())),
        bytes if addresses.span() / bytes >= MAX_PIECES => {
            let problem = format!("that makes more than {MAX_PIECES} pieces; take larger ones");
            Err(Problem::at(piece, problem))
        }
        bytes => Ok(bytes),
    });
    Ok(WantedRange { name: name.clone(), range: addresses, kind, piece: piece.transpose()? })
}

fn expectation(expect: Expect) -> Result<Expectation, Problem> {
    if expect.hosts.get_ref().is_empty() {
        let problem = "name the hosts, such as [\"amd\"]; [\"*\"] means all".to_owned();
        return Err(Problem::at(&expect.hosts, problem));
    }
    let star = |host: &&String| host.strip_suffix('*').unwrap_or(host).contains('*');
    if let Some(host) = expect.hosts.get_ref().iter().find(star) {
        let problem = format!("\"{host}\": a * stands at the end only, for the rest of a name");
        return Err(Problem::at(&expect.hosts, problem));
    }
    if expect.verdict == Verdict::Fits && expect.why.is_some() {
        let problem = "what fits has no reason; leave why out, or expect another verdict";
        return Err(Problem::at(&expect.hosts, problem));
    }
    let from = expect.from.map(|kernel| kernel.0);
    if let (Some(from), Some(until)) = (&from, &expect.until)
        && age(&until.get_ref().0) < age(from)
    {
        let problem = format!("the kernels end before {from}, where they start");
        return Err(Problem::at(until, problem));
    }
    Ok(Expectation {
        verdict: expect.verdict,
        hosts: expect.hosts.into_inner(),
        from,
        until: expect.until.map(|kernel| kernel.into_inner().0),
        why: expect.why,
    })
}

/// Parses a step.
fn step(text: &str, ranges: &[WantedRange]) -> Result<Step, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["attach"] => Ok(Step::Attach),
        ["detach"] => Ok(Step::Detach),
        ["set-iommu", "v1"] => Ok(Step::SetIommu(Type1::V1)),
        ["set-iommu", "v2"] => Ok(Step::SetIommu(Type1::V2)),
        ["start-dirty-tracking"] => Ok(Step::StartDirty),
        ["stop-dirty-tracking"] => Ok(Step::StopDirty),
        ["map", name] => named(name, ranges).map(|(index, _)| Step::Map(index)),
        ["unmap", what] => {
            unmapped(what, ranges).map(|r| Step::Unmap { range: r, with_bitmap: false })
        }
        ["unmap", what, "with-bitmap"] => {
            unmapped(what, ranges).map(|r| Step::Unmap { range: r, with_bitmap: true })
        }
        _ => Err(format!(
            "\"{text}\" is no step; steps are attach, set-iommu v1 or v2, map NAME, \
             unmap NAME or RANGE [with-bitmap], start-dirty-tracking, stop-dirty-tracking, detach"
        )),
    }
}

fn named<'a>(name: &str, ranges: &'a [WantedRange]) -> Result<(usize, &'a WantedRange), String> {
    let known = ranges.iter().enumerate().find(|(_, wanted)| wanted.name == name);
    known.ok_or_else(|| format!("there is no [[range]] named \"{name}\""))
}

fn unmapped(what: &str, ranges: &[WantedRange]) -> Result<IovaRange, String> {
    match named(what, ranges) {
        Ok((_, wanted)) => Ok(wanted.range),
        Err(unknown) if !what.contains(['+', '-']) => Err(unknown),
        Err(_) => parse_mappable(what).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: &str = "[[range]]\nname = \"ram\"\nkind = \"ram\"\nrange = \"0+1G\"\n";

    #[test]
    fn mistakes_are_reported_with_line_and_field() {
        let cases = [
            (String::new(), "l.toml:1:1: the layout has no [[range]]"),
            (RAM.replace("\"ram\"\nrange", "\"cow\"\nrange"), "l.toml:3:8: unknown kind \"cow\""),
            (RAM.replace("0+1G", "5-4"), "l.toml:4:9: range \"5-4\" ends below its start"),
            (RAM.replace("0+1G", "0-0xffffffffffffffff"), "the whole 64-bit space"),
            (RAM.replace("name = \"ram\"", "name = \"a b\""), "l.toml:2:8: a range needs a name"),
            (format!("{RAM}{RAM}"), "l.toml:6:8: two ranges have the name \"ram\""),
            (format!("{RAM}piece = 0\n"), "l.toml:5:9: a piece has at least one byte"),
            (format!("steps = [\"map rom\"]\n{RAM}"), "1:10: there is no [[range]] named \"rom\""),
            (format!("{RAM}piece = 1\n"), "l.toml:5:9: that makes more than 1048576 pieces"),
            (format!("steps = []\n{RAM}"), "1:9: a program does something"),
            (format!("steps = [\"jump\"]\n{RAM}"), "1:10: \"jump\" is no step; steps are attach"),
            (format!("steps = [\"unmap 5-4\"]\n{RAM}"), "1:10: range \"5-4\" ends below"),
            (format!("{RAM}[[expect]]\nverdict = \"fits\"\nhosts = []\n"), "7:9: name the hosts"),
            (
                format!("{RAM}[[expect]]\nverdict = \"odd\"\nhosts = [\"*\"]\n"),
                "6:11: unknown variant",
            ),
            (
                format!(
                    "{RAM}[[expect]]\nverdict = \"fits\"\nhosts = [\"*\"]\nfrom = \"7.2\"\nuntil = \"6.1\"\n"
                ),
                "9:9: the kernels end before 7.2",
            ),
        ];
        for (text, expected) in cases {
            let problem = parse("l", "l.toml", &text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn the_last_matching_expectation_holds() {
        let expect = "[[expect]]\nverdict = \"refused\"\nhosts = [\"amd*\"]\nwhy = \"hole\"\n\
                      [[expect]]\nverdict = \"lost\"\nhosts = [\"amd\"]\nfrom = \"6.12\"\nuntil = \"7.2\"\n";
        let layout = parse("l", "l.toml", &format!("{RAM}{expect}")).unwrap();
        let expected = |host, kernel| layout.expected(host, &kernel).unwrap();
        assert_eq!(expected("amd-57", Kernel::V7_3), (Verdict::Refused, Some("hole")));
        assert_eq!(expected("amd", Kernel::V6_12), (Verdict::Lost, None));
        assert_eq!(expected("amd", Kernel::V7_3), (Verdict::Refused, Some("hole")));
        assert_eq!(expected("igd", Kernel::V7_3), (Verdict::Fits, None));
        assert_eq!(parse("l", "l.toml", RAM).unwrap().expected("amd", &Kernel::V7_3), None);
    }
}
