// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: `show --svg` draws a host, and what it accepts of a layout, as a picture that stands for
//! itself; and the picture in the README is what the tool draws.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use roxmltree::Document;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-sim")).args(arguments).output().unwrap()
}

/// What the tool draws on standard output.
#[track_caller]
fn picture(arguments: &[&str]) -> String {
    let output = run(&[&["show"], arguments, &["--svg", "-"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|node| node.text().map(str::to_owned)).collect()
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn the_readme_has_what_the_tool_draws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let command =
        readme.lines().find_map(|line| line.strip_prefix("$ vfio-sim show amd ")).unwrap();
    assert!(readme.contains("(docs/amd.svg)"));
    let arguments: Vec<&str> = command.split(' ').collect();
    let (ranges, file) = arguments.split_at(arguments.len() - 2);
    assert_eq!(file, ["--svg", "docs/amd.svg"]);
    let drawn = picture(&[&["amd"], ranges].concat());
    let kept = std::fs::read_to_string(root.join("docs/amd.svg")).unwrap();
    assert!(drawn == kept, "docs/amd.svg is old; run: vfio-sim show amd {command}");
}

#[test]
fn a_picture_says_what_the_text_says() {
    let svg = picture(&["igd-57", "--kernel", "2018-v6", "guest=0x100000+0xbff00000"]);
    let texts = texts(&svg);
    for part in [
        "host igd-57, kernel 2018-v6",
        "group 1",
        "0xbf800000",
        "direct region",
        "258 MiB",
        "128 PiB",
        "guest",
        "refused EINVAL",
        "0x100000..0xbfffffff",
        "what fits of it: 0x100000..0xbf7fffff",
    ] {
        assert!(texts.iter().any(|text| text == part), "{part} in {texts:?}");
    }
}

#[test]
fn a_picture_is_for_light_and_dark_and_for_those_who_hear_it() {
    let svg = picture(&["amd", "--devices", "0000:00:03.0", "high=4G+1T"]);
    assert!(svg.contains("@media (prefers-color-scheme: dark)"));
    let document = Document::parse(&svg).unwrap();
    let words = |name| document.descendants().find(|node| node.has_tag_name(name)).unwrap().text();
    assert_eq!(words("title"), Some("I/O address space: host amd, kernel 7.3"));
    let description = words("desc").unwrap();
    assert!(description.contains("0xfd00000000..0xffffffffff reserved region"), "{description}");
    assert!(description.contains("high, 0x100000000..0x100ffffffff, is refused."), "{description}");
}

#[test]
fn text_from_files_cannot_break_a_picture() {
    let path = temporary("hostile.toml");
    let host = include_str!("../hosts/vtd39.toml");
    let description = r#"description = "</text><script>&\"'\u0007""#;
    let own = host.lines().map(|line| match line.starts_with("description = \"VT-d") {
        true => description,
        false => line,
    });
    std::fs::write(&path, own.collect::<Vec<_>>().join("\n")).unwrap();
    let texts = texts(&picture(&[path.to_str().unwrap(), "a<b&=0+4K"]));
    for part in ["</text><script>&\"'\u{fffd}", "a<b&"] {
        assert!(texts.iter().any(|text| text == part), "{part} in {texts:?}");
    }
}

#[test]
fn a_file_gets_what_standard_output_would() {
    let path = temporary("vtd48.svg");
    let output = run(&["show", "vtd48", "--svg", path.to_str().unwrap()]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert_eq!(std::fs::read_to_string(path).unwrap(), picture(&["vtd48"]));
}

#[test]
fn bad_usage_exits_with_2() {
    let message = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(message(&["show", "igd", "ram=0+4G"]).contains("--svg"));
    assert!(message(&["show", "igd", "--svg", "-", "--json"]).contains("cannot be used with"));
    assert!(message(&["show", "igd", "--svg", "-", "ram=5-4"]).contains("ends below its start"));
    let nowhere = message(&["show", "igd", "--svg", "no/such/place.svg"]);
    assert!(nowhere.contains("no/such/place.svg: cannot write"), "{nowhere}");
    assert_eq!(nowhere.lines().count(), 1);
}
