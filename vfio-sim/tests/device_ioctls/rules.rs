// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each rule of a device's ioctls can be broken, and stands in `SEMANTICS.md`.

use std::os::fd::AsRawFd as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vfio_sim::device::IrqIndex;
use vfio_sim::device::ioctl::command;
use vfio_type1::{Errno, Kernel};

use crate::scene::{CLOSED, FIRST_FD, OTHER_FILE, Scene, errno, fds, function};

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

/// A rule, its errno, which index is on with one vector, and the header and data that break it.
type Refused<'a> = (&'a str, Errno, Option<u32>, [u32; 4], &'a [u8]);

#[test]
fn every_rule_of_set_irqs_can_be_broken() {
    let (one, closed, other) =
        (&fds(&[FIRST_FD])[..], &fds(&[CLOSED])[..], &fds(&[OTHER_FILE])[..]);
    let requests: [Refused<'_>; 31] = [
        ("UnknownIndex", Errno::EINVAL, None, [EVENTFD | TRIGGER, 5, 0, 1], one),
        ("UnknownFlags", Errno::EINVAL, None, [EVENTFD | TRIGGER | 64, 2, 0, 1], one),
        ("Wraps", Errno::EINVAL, None, [NONE | TRIGGER, 2, 1, u32::MAX - 1], &[]),
        ("Wraps", Errno::EINVAL, None, [NONE | TRIGGER, 2, u32::MAX, 0], &[]),
        ("TooMany", Errno::EINVAL, None, [EVENTFD | TRIGGER, 2, 8, 0], &[]),
        ("TooMany", Errno::EINVAL, None, [NONE | TRIGGER, 0, 0, 2], &[]),
        ("DataKind", Errno::EINVAL, None, [TRIGGER, 2, 0, 1], one),
        ("DataKind", Errno::EINVAL, None, [NONE | BOOL | TRIGGER, 2, 0, 1], one),
        ("DataTooShort", Errno::EINVAL, None, [EVENTFD | TRIGGER, 2, 0, 2], one),
        ("DataTooShort", Errno::EINVAL, None, [BOOL | TRIGGER, 2, 0, 5], one),
        ("Action", Errno::ENOTTY, None, [EVENTFD, 2, 0, 1], one),
        ("Action", Errno::ENOTTY, None, [NONE | MASK | UNMASK, 0, 0, 1], &[]),
        ("Action", Errno::ENOTTY, None, [NONE | MASK, 1, 0, 1], &[]),
        ("Action", Errno::ENOTTY, None, [NONE | UNMASK, 4, 0, 1], &[]),
        ("Off", Errno::EINVAL, None, [NONE | MASK, 0, 0, 1], &[]),
        ("Off", Errno::EINVAL, None, [NONE | TRIGGER, 0, 0, 1], &[]),
        ("Off", Errno::EINVAL, None, [NONE | TRIGGER, 2, 0, 0], &[]),
        ("Off", Errno::EINVAL, None, [BOOL | TRIGGER, 1, 0, 1], &[1]),
        ("Off", Errno::EINVAL, None, [NONE | TRIGGER, 3, 0, 1], &[]),
        ("NotOne", Errno::EINVAL, None, [NONE | TRIGGER, 0, 0, 0], &[]),
        ("NotOne", Errno::EINVAL, None, [EVENTFD | TRIGGER, 4, 0, 0], &[]),
        ("NoVectors", Errno::ERANGE, None, [EVENTFD | TRIGGER, 2, 0, 0], &[]),
        ("ClosedFd", Errno::EBADF, None, [EVENTFD | TRIGGER, 2, 0, 1], closed),
        ("NoEventFd", Errno::EINVAL, None, [EVENTFD | TRIGGER, 0, 0, 1], other),
        ("OtherKind", Errno::EINVAL, Some(1), [EVENTFD | TRIGGER, 2, 0, 1], one),
        ("OtherKind", Errno::EINVAL, Some(0), [NONE | TRIGGER, 1, 0, 0], &[]),
        ("NotOne", Errno::EINVAL, Some(0), [NONE | UNMASK, 0, 0, 0], &[]),
        ("MaskByEventfd", Errno::ENOTTY, Some(0), [EVENTFD | MASK, 0, 0, 1], one),
        ("Off", Errno::EINVAL, None, [EVENTFD | UNMASK, 0, 0, 1], one),
        ("ClosedFd", Errno::EBADF, Some(0), [EVENTFD | UNMASK, 0, 0, 1], closed),
        ("BeyondOn", Errno::EINVAL, Some(1), [EVENTFD | TRIGGER, 1, 1, 1], one),
    ];
    let mut broken = Vec::new();
    for kernel in Kernel::ALL {
        for (rule, errno, on, header, data) in requests {
            let scene = Scene::new(kernel);
            if let Some(index) = on {
                scene.set_irqs([EVENTFD | TRIGGER, index, 0, 1], one).unwrap();
            }
            let error = scene.set_irqs(header, data).unwrap_err();
            let debug = format!("{error:?}");
            assert!(debug.starts_with(&format!("Irqs({rule}")), "{kernel}, {header:x?}: {debug}");
            assert_eq!(error.errno(), errno, "{debug}");
            broken.push(rule);
        }
    }
    broken.push("NoThread");
    stand_in_semantics("irq_error.rs", "IrqError", &broken);
}

/// In a process of its own, which has one descriptor left: for the copy of the eventfd.
#[test]
fn waiting_for_an_eventfd_needs_a_descriptor() {
    const NAME: &str = "rules::waiting_for_an_eventfd_needs_a_descriptor";
    if std::env::var_os("FEW_DESCRIPTORS").is_none() {
        let mut process = std::process::Command::new(std::env::current_exe().unwrap());
        let process = process.args(["--exact", NAME]).env("FEW_DESCRIPTORS", "yes");
        let output = process.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let scene = Scene::new(Kernel::NEWEST);
    scene.set_irqs([EVENTFD | TRIGGER, 0, 0, 1], &fds(&[FIRST_FD])).unwrap();
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let current = Some(u64::try_from(next).unwrap() + 1);
    let limit = Rlimit { current, ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let refused = scene.set_irqs([EVENTFD | UNMASK, 0, 0, 1], &fds(&[FIRST_FD + 1])).unwrap_err();
    assert!(format!("{refused:?}").starts_with("Irqs(NoThread"), "{refused:?}");
    assert_eq!(refused.errno(), Errno::ENOMEM);
}

#[test]
fn every_other_rule_can_be_broken() {
    let mut broken = vec!["Irqs"];
    let mut refused = |rule, errno, command, words: &[u32]| {
        let scene = Scene::with(
            Kernel::NEWEST,
            vfio_sim::device::Function { express: rule != "CannotReset", ..function() },
        );
        let error = scene.call(command, words).unwrap_err();
        assert!(format!("{error:?}").starts_with(rule), "{error:?}");
        assert_eq!(error.errno(), errno, "{error:?}");
        broken.push(rule);
    };
    refused("UnknownCommand", Errno::ENOTTY, 0x3b74, &[0]);
    refused("UnknownCommand", Errno::ENOTTY, 0, &[0]);
    refused("Argument", Errno::EINVAL, command::GET_INFO, &[15]);
    refused("NoRegion", Errno::EINVAL, command::GET_REGION_INFO, &[32, 0, 8]);
    refused("NoIrqs", Errno::EINVAL, command::GET_IRQ_INFO, &[16, 0, 5]);
    refused("CannotReset", Errno::EINVAL, command::RESET, &[]);
    refused("HotResetFlags", Errno::EINVAL, command::PCI_HOT_RESET, &[12, 1, 0]);
    refused("NoHotReset", Errno::ENODEV, command::GET_PCI_HOT_RESET_INFO, &[12, 1, 0]);
    for flags in [1 << 19, 3 << 16, u32::MAX] {
        refused("FeatureFlags", Errno::EINVAL, command::FEATURE, &[8, flags]);
    }
    for flags in [0, 1 | 1 << 16, 7 << 16, 0xffff | 1 << 17] {
        refused("NoFeature", Errno::ENOTTY, command::FEATURE, &[8, flags]);
    }
    stand_in_semantics("ioctl/mod.rs", "DeviceIoctlError", &broken);
    let older = Scene::new(Kernel::V4_19).call(command::FEATURE, &[0]);
    assert_eq!(errno(older), Some(Errno::ENOTTY), "4.19 does not look at argsz");
}

/// Holds the variants of an error against those that were broken and the rows of `SEMANTICS.md`.
fn stand_in_semantics(file: &str, enumeration: &str, broken: &[&str]) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("src/device").join(file)).unwrap();
    let semantics = std::fs::read_to_string(root.join("../SEMANTICS.md")).unwrap();
    let (_, variants) = source.split_once(&format!("pub enum {enumeration} {{\n")).unwrap();
    let (variants, _) = variants.split_once("\n}\n").unwrap();
    let variants = variants.lines().filter_map(|line| line.strip_prefix("    "));
    let names = variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let names: Vec<&str> =
        names.filter_map(|line| line.split(|c: char| !c.is_alphanumeric()).next()).collect();
    assert!(names.len() > 5, "the variants were not found: {names:?}");
    for name in names {
        assert!(broken.contains(&name), "{enumeration}::{name} is broken by no test");
        let row = format!("| `{enumeration}::{name}` |");
        assert!(semantics.contains(&row), "{row} is missing in SEMANTICS.md");
    }
}

#[test]
fn messages_say_what_is_wrong_and_what_to_do() {
    let scene = Scene::new(Kernel::V6_1);
    scene.set_irqs([EVENTFD | TRIGGER, 2, 0, 1], &fds(&[FIRST_FD])).unwrap();
    let refused = scene.set_irqs([EVENTFD | TRIGGER, 2, 0, 2], &fds(&[FIRST_FD, FIRST_FD]));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "MSI-X is on with 1 vectors; to use vector 1, turn it off and on with more"
    );
    let refused = scene.set_irqs([EVENTFD | TRIGGER, 2, 6, 3], &fds(&[0; 3]));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the device has 8 MSI-X vectors; 3 from 6 on are asked for"
    );
    assert_eq!(IrqIndex::from_number(4), Some(IrqIndex::Request));
    assert_eq!(IrqIndex::from_number(5), None);
}

#[test]
fn reset_passes_over_its_argument_and_resets_the_device() {
    let scene = Scene::new(Kernel::NEWEST);
    assert_eq!(scene.ioctl(command::RESET, 0xdead_beef).unwrap(), 0);
    assert_eq!(scene.device.read_u64(0, 8).unwrap(), 1);
}
