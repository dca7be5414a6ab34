// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Host files: a machine described in TOML, for a person to read and edit.
//!
//! `vfio-sim/HOSTS.md` explains the format. Every mistake is reported with its line, the field, and
//! what was expected. `schema` has the shape of the file, `facts` reads what it says of
//! IOMMUs, `pci` what it says of devices, `bridge` of host bridges,
//! `region` the regions that it states, `build` makes a host and checks one part against
//! another. `write` goes the other way.

mod bridge;
mod build;
mod facts;
mod pci;
mod region;
mod schema;
mod write;
mod write_platform;

use std::path::Path;

use crate::host::Host;
use crate::toml_file::{self, FileError};
use build::build;
pub use region::region_kind_name;
pub use write::write;

/// Reads a host file.
pub fn load(path: &Path) -> Result<Host, FileError> {
    toml_file::load(path, parse)
}

/// Parses the text of a host file. `name` becomes the host's, `file` stands in errors.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Host, FileError> {
    toml_file::parse(file, text, |parsed| build(name, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Iova;

    const IOMMU: &str = "[[iommu]]\ndriver = \"vtd\"\naperture = \"0-0xffff\"\n\
        page-sizes = \"0x1000\"\ncoherent = false\nisolated-msi = true\n";

    fn problem(rest: &str) -> String {
        parse("test", "test.toml", &format!("{IOMMU}{rest}")).unwrap_err().to_string()
    }

    fn device(name: &str, regions: &str) -> String {
        format!(
            "[[group]]\nnumber = 1\n[[group.device]]\nname = \"{name}\"\nregions = [{regions}]\n"
        )
    }

    #[test]
    fn mistakes_are_reported_with_line_and_field() {
        let cases = [
            ("", "test.toml:1:1: the host has no [[group]]"),
            ("[[group]]\nnumber = 1\n", "test.toml:8:10: group 1 has no device"),
            (&device("00:03.0", ""), "test.toml:10:8: \"00:03.0\" is not a PCI address"),
            (&device("0000:00:03.0", "\"5-4 msi\""), "test.toml:11:12: range \"5-4\" ends below"),
            (&device("0000:00:03.0", "\"0+1 mis\""), "11:12: unknown region kind \"mis\""),
            (&device("0000:00:03.0", "\"0+1\""), "write RANGE KIND"),
            (&device("0000:00:03.0", "\"0+1 msi since 6.6\""), "unknown kernel \"6.6\""),
            ("[[group]]\nnumber = -1\n", "test.toml:8:10: "),
            (
                "[[iommu]]\n[iommu.smmuv3]\ninput-bits = 48\noutput-bits = 48\n\
                 granules = [\"4K\"]\nisolated-msi = true\n[[iommu.smmuv3.rmr]]\n\
                 base = \"0xfffffffffffff000\"\nlength = \"8K\"\ndevices = []\n\
                 [[group]]\nnumber = 1\n",
                "test.toml:15:10: 0x2000 bytes from 0xfffffffffffff000 are no range",
            ),
            ("[[group]]\nnumbr = 1\n", "test.toml:8:1: unknown field `numbr`"),
            ("[[group]\n", "test.toml:7:"),
        ];
        for (rest, expected) in cases {
            let problem = problem(rest);
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn twins_are_refused() {
        let group = device("0000:00:03.0", "");
        assert!(problem(&format!("{group}{group}")).contains("two groups have the number 1"));
        let second = group.replace("number = 1", "number = 2");
        assert!(problem(&format!("{group}{second}")).contains("is in group 1 already"));
    }

    #[test]
    fn facts_are_checked_too() {
        let vtd = |capability: &str, rest: &str| {
            let facts = format!("capability = \"{capability}\"\ninterrupt-remapping = true\n");
            let group = device("0000:00:03.0", "");
            let text = format!("[[iommu]]\n[iommu.vtd]\n{facts}{rest}{group}");
            parse("test", "test.toml", &text).unwrap_err().to_string()
        };
        let good = "0xd2008c222f0686";
        let rmrr = |range: &str, device: &str| {
            format!("[[iommu.vtd.rmrr]]\nrange = \"{range}\"\ndevices = [\"{device}\"]\n")
        };
        let cases = [
            (vtd("0x10000", ""), "test.toml:3:14: the capability register offers no page walk"),
            (vtd(good, &rmrr("5-4", "0000:00:03.0")), "test.toml:6:9: range \"5-4\" ends below"),
            (vtd(good, &rmrr("0-5", "0000:00:09.0")), "test.toml:7:12: the host has no device"),
            (problem("[iommu.vtd]\ncapability = 1\ninterrupt-remapping = true\n"), "exclude each"),
            (
                parse("t", "t.toml", "[[iommu]]\n[[group]]\nnumber = 1\n").unwrap_err().to_string(),
                "needs driver",
            ),
        ];
        for (problem, expected) in cases {
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
        }
        let classes = device("0000:00:03.0", "") + "class = \"0x1000000\"\n";
        assert!(problem(&classes).contains("test.toml:12:9: a class has six digits"));
        let buses = device("0000:00:03.0", "") + "buses = \"02-01\"\n";
        assert!(problem(&buses).contains("\"02-01\" are not buses"));
        let wide =
            device("0000:00:03.0", "") + "bars = { 0 = \"0+16M 64-bit\", 1 = \"0x1000000+16M\" }\n";
        assert!(problem(&wide).contains("test.toml:12:14: BAR 0 has 64 bits"));
        let registers =
            device("0000:00:03.0", "") + "buses = \"01\"\nbars = { 2 = \"0x1000000+16M\" }\n";
        assert!(problem(&registers).contains("a bridge has BARs 0 and 1, and no BAR 2"));
        let bridge = "[[host-bridge]]\nbuses = \"00-7f\"\n";
        let bridges = format!("{}{bridge}{bridge}", device("0000:00:03.0", ""));
        assert!(problem(&bridges).contains("test.toml:15:9: two host bridges have bus 00 of"));
        let bridge = device("0000:00:03.0", "") + "[[host-bridge]]\nwindows = [\"5-4\"]\n";
        assert!(problem(&bridge).contains("test.toml:13:11: range \"5-4\" ends below"));
        let alone = device("0000:00:03.0", "") + "vendor = \"0x8086\"\n";
        assert!(problem(&alone).contains("test.toml:12:10: vendor and device go together"));
    }

    #[test]
    fn firmware_memory_is_stated_with_the_iommu_of_its_device() {
        let unit = |rest: &str| {
            let facts = "capability = \"0xd2008c222f0686\"\ninterrupt-remapping = true\n";
            format!("[[iommu]]\n[iommu.vtd]\n{facts}{rest}")
        };
        let rmrr = "[[iommu.vtd.rmrr]]\nrange = \"0+1M\"\ndevices = [\"0000:00:03.0\"]\n";
        let group =
            device("0000:00:03.0", "").replace("number = 1", "number = 1\niommu = \"iommu1\"");
        let there = format!("{}{}{group}", unit(""), unit(rmrr));
        assert!(parse("t", "t.toml", &there).is_ok());
        let elsewhere = format!("{}{}{group}", unit(rmrr), unit(""));
        let problem = parse("t", "t.toml", &elsewhere).unwrap_err().to_string();
        assert!(
            problem.contains("t.toml:7:12: device 0000:00:03.0 is not behind this"),
            "{problem}"
        );
    }

    #[test]
    fn what_decodes_one_address_is_refused_by_name() {
        let bars = |bars: &str| device("0000:00:03.0", "") + &format!("bars = {{ {bars} }}\n");
        let two = bars("0 = \"0xf0000000+16M\", 1 = \"0xf0800000+8M\"");
        let expected =
            "test.toml:10:8: BAR 1 of 0000:00:03.0, 0xf0800000..0xf0ffffff, overlaps BAR 0 of";
        assert!(problem(&two).contains(expected), "{}", problem(&two));
        let one = bars("0 = \"0xf0000000+16M\"");
        let other = one.replace("number = 1", "number = 2").replace("03.0", "04.0");
        assert!(problem(&format!("{one}{other}")).contains("overlaps BAR 0 of 0000:00:03.0"));
        let elsewhere = other.replace("0000:00:04.0", "0001:00:04.0");
        assert!(parse("t", "t.toml", &format!("{IOMMU}{one}{elsewhere}")).is_ok());
        let bridge = device("0000:00:03.0", "") + "buses = \"00-02\"\n";
        assert!(problem(&bridge).contains("bus 00 is the one that the bridge stands on"));
        let ivmd = "[iommu.amd]\ntable-levels = 4\ninterrupt-remapping = true\n[[iommu.amd.ivmd]]\n\
                    start = \"0xfffffffffffff001\"\nlength = \"20K\"";
        assert!(wrong_facts(ivmd).contains("run past the end of the space"));
    }

    #[test]
    fn a_model_says_itself_what_it_is() {
        let model = |rest: &str| device("0000:00:03.0", "") + rest;
        let host = |rest: &str| parse("t", "t.toml", &format!("{IOMMU}{}", model(rest)));
        let placed = host("model = \"peer,size=1M\"\n").unwrap();
        let pci = &placed.devices().next().unwrap().pci;
        assert_eq!((pci.ids, pci.bars.len()), (Some((0x1b36, 0x10f1)), 1));
        let stated = "model = \"peer,size=1M\"\nbars = { 0 = \"1T+1M 64-bit prefetchable\" }\n";
        let pci = host(stated).unwrap().devices().next().unwrap().pci.clone();
        assert_eq!(pci.bars[&0].range.first().0, 1 << 40);
        for (rest, expected) in [
            ("model = \"virtio\"", "test.toml:12:9: there is no device model \"virtio\""),
            ("model = \"edu,bdf=07:00.0\"", "test.toml:12:9: the device's name says where it is"),
            ("model = \"edu\"\nclass = \"0x020000\"", "test.toml:13:9: the model says that"),
            ("model = \"edu\"\nbuses = \"01\"", "test.toml:13:9: the model is no bridge"),
            (
                "model = \"edu\"\nbars = { 0 = \"0xc0000000+4K\" }",
                "test.toml:13:14: BAR 0 of the model is 0x100000 bytes of memory, 32-bit; state",
            ),
            (
                "model = \"edu\"\nbars = { 0 = \"0xc0000000+1M\", 1 = \"0+16 io\" }",
                "the model has no BAR 1",
            ),
        ] {
            let problem = problem(&model(&format!("{rest}\n")));
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
        }
    }

    /// What is wrong with an IOMMU of these facts, in a host with pages of 4 KiB.
    fn wrong_facts(facts: &str) -> String {
        let text = format!("[[iommu]]\n{facts}\n{}", device("0000:00:03.0", ""));
        let problem = parse("test", "test.toml", &text).unwrap_err().to_string();
        assert_eq!(problem.lines().count(), 1, "{problem}");
        problem
    }

    #[test]
    fn registers_and_what_is_said_beside_them_must_agree() {
        let vtd = |capability: u64, extended: u64, rest: &str| {
            let mut facts = format!("[iommu.vtd]\ncapability = \"{capability:#x}\"\n");
            facts += &format!("extended-capability = \"{extended:#x}\"\n{rest}");
            wrong_facts(&facts)
        };
        let (wide, narrow) = (0xd2_008c_222f_0686, 0xd2_008c_2226_0286);
        let (ir, sc, smts, both) = (1 << 3, 1 << 7, 1 << 43, 0b11 << 46);
        let remapped = "interrupt-remapping = true\n";
        let coherent = format!("{remapped}snoop-control = true");
        let scalable = format!("{remapped}scalable-mode = true");
        for (problem, expected) in [
            (vtd(wide, 0, remapped), "test.toml:5:23: extended-capability offers no interrupt"),
            (vtd(wide, ir, &coherent), "test.toml:6:17: bit 7 of extended-capability says that"),
            (vtd(wide, ir | sc, &scalable), "test.toml:6:17: scalable mode needs a unit that has"),
            (
                vtd(wide, ir | smts, &scalable),
                "test.toml:6:17: extended-capability offers no stage",
            ),
            (vtd(narrow, ir | smts | both, &scalable), "test.toml:6:17: the stages share no page"),
        ] {
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
        }
    }

    #[test]
    fn facts_of_other_platforms_are_checked_too() {
        for (facts, expected) in [
            (
                "[iommu.dart]\ninput-bits = 32\nisolated-msi = false",
                "test.toml:3:14: a DART has pages of 16K only",
            ),
            (
                "[iommu.s390]\nwindow = \"4T+1G\"\ntable = \"region-first\"",
                "test.toml:3:10: the window starts outside a region third table",
            ),
            (
                "[iommu.s390]\nwindow = \"4G+1G\"\ntable = \"third\"",
                "test.toml:4:9: unknown variant `third`",
            ),
            (
                "[iommu.riscv]\nmode = \"sv32\"\nisolated-msi = false",
                "test.toml:3:8: unknown variant `sv32`",
            ),
            (
                "[iommu.amd]\ntable-levels = 4\nguest-levels = 6\ninterrupt-remapping = true",
                "test.toml:4:16: guest-levels is 4 or 5",
            ),
            (
                "[iommu.smmuv3]\ninput-bits = 48\noutput-bits = 48\ngranules = []\n\
                 isolated-msi = true",
                "test.toml:5:12: an SMMU has at least one granule",
            ),
            (
                "[iommu.riscv]\nmode = \"sv39\"\nisolated-msi = false\n[iommu.dart]\n\
                 input-bits = 32\nisolated-msi = false",
                "test.toml:1:1: an IOMMU has facts of one platform only",
            ),
        ] {
            let problem = wrong_facts(facts);
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
        }
    }

    #[test]
    fn a_region_of_no_bytes_can_be_stated() {
        let text = format!("{IOMMU}{}", device("0000:00:03.0", "\"0x2000+0 direct\""));
        let host = parse("test", "test.toml", &text).unwrap();
        let region = host.groups[0].devices[0].regions[0].region;
        assert_eq!((region.first, region.last), (Iova(0x2000), Iova(0x1fff)));
    }
}
