// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: an ordinary user stays who he is; and where a user may have no namespaces, the exit status is 125, and
//! one line says what to allow.

use std::process::Command;

use crate::said::{Said, run};
use crate::tool::{installed, vfio_sim};

#[test]
fn the_user_stays_the_same() {
    let Some(run) = run("dma-engine") else { return };
    let said = run.by_an_ordinary_user().program("sh", ["-c", "id -u; id -g; ls /dev/vfio"]).ok();
    let user = rustix::process::geteuid();
    let (user, group) = match user.is_root() {
        true => (65534, 65534),
        false => (user.as_raw(), rustix::process::getegid().as_raw()),
    };
    said.prints(&format!("{user}\n{group}\n")).prints("vfio\n");
}

#[test]
fn without_namespaces_it_says_what_to_allow() {
    let tools = installed("unshare", "util-linux").zip(installed("setpriv", "util-linux"));
    // In a namespace where there can be no more of them, and without the privileges that one has there.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let Some(((unshare, _), _)) = tools.zip(run("dma-engine")) else { return };
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(vfio_sim());
    let said = Said::of(command.args(["run", "vtd48", "--", "true"]), "").ends_with(125);
    said.says_one_line().complains("allow them with sysctl");
}
