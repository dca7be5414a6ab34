// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the report that stopped the 2018 series replays.
//!
//! On a 57-bit host, the display's RMRR was cut out of the valid list, so that a guest with memory
//! there could not start. From 5.4 on the region is relaxable and the same map is accepted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{Rig, group, range, vtd};
use vfio_type1::{
    Access, Errno, Kernel, MapDma, MapError, Obstacle, RegionKind, ReservedRegion, extension,
};

fn rig(kernel: Kernel) -> Rig {
    let rmrr = ReservedRegion::new(0xbf80_0000, 0xcf9f_ffff, RegionKind::DirectRelaxable);
    let host = vec![group(&vtd(57), 2, vec![rmrr, common::msi()])];
    Rig::new(kernel, extension::TYPE1V2, host)
}

fn guest_memory() -> MapDma {
    // 3 GiB are more than the test process has, but the rule on the list comes first.
    MapDma::new(0x10_0000, common::RAM, 0xbff0_0000, Access::ReadWrite)
}

#[test]
fn the_2018_series_cuts_the_display_out() {
    let rig = rig(Kernel::SERIES_2018_V6);
    let expected = [
        range(0, 0xbf7f_ffff),
        range(0xcfa0_0000, 0xfedf_ffff),
        range(0xfef0_0000, 0x01ff_ffff_ffff_ffff),
    ];
    assert_eq!(rig.valid(), expected);
    let error = rig.container.map(&rig.process, &guest_memory()).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    let MapError::NotValid(reason) = &error else { panic!("{error}") };
    let Obstacle::Reserved(culprit) = &reason.obstacles[0] else { panic!("{error}") };
    assert_eq!(culprit.device, "0000:00:02.0");
}

#[test]
fn later_kernels_accept_the_same_map() {
    for kernel in [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3] {
        let rig = rig(kernel);
        assert_eq!(rig.valid().len(), 2, "{kernel}");
        let error = rig.container.map(&rig.process, &guest_memory()).unwrap_err();
        // Past the list, to the memory that this test does not have.
        assert_eq!(error.errno(), Errno::EFAULT, "{kernel}: {error}");
    }
}

#[test]
fn before_the_list_nothing_was_refused() {
    let rig = rig(Kernel::V4_19);
    assert_eq!(rig.valid(), []);
    rig.map(0xc000_0000, 0x1000).unwrap();
    rig.map(0xfee0_0000, 0x1000).unwrap();
}
