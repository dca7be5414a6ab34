// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole documents, read back by an XML parser.

use proptest::prelude::*;
use roxmltree::{Document, Node};
use vfio_type1::{Kernel, RegionKind, ReservedRegion};

use super::render;
use super::text::{FONTS, Font};
use crate::check::check;
use crate::host::{Host, HostRegion};
use crate::hosts;
use crate::knobs::Knobs;
use crate::layout::{Layout, RangeKind, WantedRange};
use crate::number::parse_range;
use crate::show::show;

/// A rectangle on the page, in pixels: `left..right` by `top..bottom`.
#[derive(Clone, Copy, Debug)]
struct Rectangle {
    left: i64,
    right: i64,
    top: i64,
    bottom: i64,
}

impl Rectangle {
    fn overlaps(&self, other: &Self) -> bool {
        let across = self.left < other.right && other.left < self.right;
        across && self.top < other.bottom && other.top < self.bottom
    }

    fn is_inside(&self, other: &Self) -> bool {
        let across = other.left <= self.left && self.right <= other.right;
        across && other.top <= self.top && self.bottom <= other.bottom
    }
}

fn number(node: Node<'_, '_>, attribute: &str) -> i64 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

/// How far the groups around an element have moved it.
fn shift(node: Node<'_, '_>) -> (i64, i64) {
    let places = node.ancestors().filter_map(|node| node.attribute("transform"));
    places.fold((0, 0), |(x, y), place| {
        let numbers = place.strip_prefix("translate(").unwrap().strip_suffix(')').unwrap();
        let (right, down) = numbers.split_once(' ').unwrap();
        (x + right.parse::<i64>().unwrap(), y + down.parse::<i64>().unwrap())
    })
}

fn font(node: Node<'_, '_>) -> &'static Font {
    let class = node.attribute("class").unwrap().split(' ').next().unwrap();
    FONTS.iter().find(|font| font.class() == class).unwrap()
}

/// The place of a text, as wide as it may get.
fn place(node: Node<'_, '_>) -> Rectangle {
    let (font, text) = (font(node), node.text().unwrap_or_default());
    let size = i64::try_from(font.size).unwrap();
    let width = i64::try_from(font.width(text)).unwrap();
    let (right, down) = shift(node);
    let (x, y) = (number(node, "x") + right, number(node, "y") + down);
    let ends_there = node.attribute("class").unwrap().ends_with(" end");
    let left = if ends_there { x - width } else { x };
    Rectangle { left, right: left + width, top: y - size * 4 / 5, bottom: y + size / 4 }
}

fn texts<'a>(document: &'a Document<'a>) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name("text")).collect()
}

/// Every text lies on the page and clear of the others.
fn check_labels(document: &Document<'_>) -> Result<(), TestCaseError> {
    let root = document.root_element();
    let (right, bottom) = (number(root, "width"), number(root, "height"));
    let page = Rectangle { left: 0, right, top: 0, bottom };
    let places: Vec<Rectangle> = texts(document).into_iter().map(place).collect();
    for (index, label) in places.iter().enumerate() {
        let name = || texts(document)[index].text().unwrap_or_default().to_owned();
        prop_assert!(label.is_inside(&page), "{}: {label:?} in {page:?}", name());
        let other = places[..index].iter().find(|other| other.overlaps(label));
        prop_assert!(other.is_none(), "{}: {label:?} on {other:?}", name());
    }
    Ok(())
}

fn region() -> impl Strategy<Value = ReservedRegion> {
    let kind = prop::sample::select(&RegionKind::ALL[..]);
    (any::<u64>(), 0u32..64, any::<u64>(), 0u32..64, kind).prop_map(|(a, shift, b, other, kind)| {
        let (first, length) = (a >> shift, b >> other);
        ReservedRegion::new(first, first.saturating_add(length), kind)
    })
}

fn wanted() -> impl Strategy<Value = WantedRange> {
    (any::<String>(), any::<u64>(), 0u32..64, any::<u64>(), 0u32..64).prop_map(
        |(name, a, shift, b, other)| {
            let first = (a >> shift).max(1);
            let last = first.saturating_add(b >> other);
            let range = parse_range(&format!("{first:#x}-{last:#x}")).unwrap();
            WantedRange { name, range, kind: RangeKind::Ram, piece: None }
        },
    )
}

/// A host with text and regions that no host has.
fn host() -> impl Strategy<Value = Host> {
    let known = prop::sample::select(&["vtd39", "amd-64", "smmu", "qemu-virtio-q35"][..]);
    let regions = prop::collection::vec(region(), 0..6);
    (known, any::<[String; 3]>(), regions).prop_map(
        |(known, [name, description, device], regions)| {
            let mut host = hosts::find(known).unwrap();
            (host.name, host.description) = (name, description);
            let devices = host.groups.iter_mut().flat_map(|group| &mut group.devices);
            for (index, changed) in devices.enumerate() {
                changed.description.clone_from(&device);
                if index % 2 == 0 {
                    changed.regions = regions.iter().copied().map(HostRegion::always).collect();
                }
            }
            host
        },
    )
}

proptest! {
    #[test]
    fn any_host_and_layout_give_well_formed_xml_without_overlaps(
        host in host(),
        ranges in prop::collection::vec(wanted(), 0..6),
        kernel in prop::sample::select(&Kernel::ALL[..]),
    ) {
        let show = show(&host, kernel, None).unwrap();
        let report = check(&host, kernel, &Knobs::default(), None, &Layout::plain(ranges.clone())).unwrap();
        let xml = render(&show, (!ranges.is_empty()).then_some(&report));
        let document = Document::parse(&xml);
        prop_assert!(document.is_ok(), "{:?} in\n{xml}", document.err());
        check_labels(&document.unwrap())?;
    }
}

/// The texts of a picture of a known host, which must be well laid out.
fn texts_of(host: &str, kernel: &str, ranges: &[&str]) -> Vec<String> {
    let host = hosts::find(host).unwrap();
    let ranges: Vec<String> = ranges.iter().map(|&range| range.to_owned()).collect();
    let layout = Layout::plain(crate::layout::parse_ranges(&ranges).unwrap());
    let kernel: Kernel = kernel.parse().unwrap();
    let report = check(&host, kernel, &Knobs::default(), None, &layout).unwrap();
    let xml = render(&show(&host, kernel, None).unwrap(), Some(&report));
    let document = Document::parse(&xml).unwrap();
    check_labels(&document).unwrap();
    texts(&document).iter().filter_map(|node| node.text().map(str::to_owned)).collect()
}

#[test]
fn every_known_host_is_well_laid_out() {
    for host in hosts::names() {
        let texts = texts_of(host, "7.3", &["ram=0+4G", "bar=0x380000000000+16G", "x=0-0xfff"]);
        assert!(texts.iter().any(|text| text.starts_with(&format!("host {host},"))), "{texts:?}");
    }
}

#[test]
fn groups_that_look_alike_share_a_panel() {
    let texts = texts_of("igd", "7.3", &[]);
    let count = |wanted: &str| texts.iter().filter(|text| *text == wanted).count();
    assert_eq!((count("group 1"), count("group 2"), count("groups 4, 5")), (1, 1, 1));
    // Once in each panel, and once in the legend.
    assert_eq!(count("MSI window"), 4);
}

#[test]
fn groups_without_an_address_space_say_why() {
    let texts = texts_of("igd", "7.3", &[]);
    let why = "group 6: cannot be assigned: 0000:00:1f.2 is bound to ahci";
    assert!(texts.iter().any(|text| text.starts_with(why)), "{texts:?}");
}

#[test]
fn regions_that_a_kernel_does_not_guard_are_named_so() {
    let texts = texts_of("smmu", "4.19", &["ram=0+4G"]);
    for part in
        ["software MSI window, unguarded", "software MSI window, which this kernel does not guard"]
    {
        assert!(texts.iter().any(|text| text == part), "{part} in {texts:?}");
    }
    assert!(texts.iter().any(|text| text == "fits"));
}
