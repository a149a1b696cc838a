//! The names of those for whom a backend is ejected. The programs keep a hash of each.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redirector_common::backend::Witness;

use crate::datapath::{
    attach::hierarchy::{cgroup_paths, cgroup2_mount},
    attach::interfaces::pinned::name_of,
};

/// How long the names are kept: reading them takes as long as walking all cgroups.
const KEPT: Duration = Duration::from_secs(5);
/// The same while a number is missing, which may be that of a new cgroup.
const KEPT_WITHOUT_NAME: Duration = Duration::from_secs(1);

static NAMES: Mutex<Option<(Instant, HashMap<u16, String>)>> = Mutex::new(None);

/// The cgroup or the interface whose connects have failed, such as `the cgroup /kubepods/pod7`. Two
/// of them may have the same hash; then it is one of both.
pub fn client_name(client: u16) -> String {
    let mut names = NAMES.lock();
    let names = match &mut *names {
        Some((since, names)) if since.elapsed() < kept(names.contains_key(&client)) => names,
        stale => &mut stale.insert((Instant::now(), read_names())).1,
    };
    names.get(&client).cloned().unwrap_or_else(|| "a cgroup that is gone".to_owned())
}

fn kept(has_name: bool) -> Duration {
    if has_name { KEPT } else { KEPT_WITHOUT_NAME }
}

/// The name of a cgroup as a client, from its directory.
pub fn cgroup_client(cgroup: &Path) -> String {
    below_mount(cgroup, &cgroup2_mount().unwrap_or_default())
}

fn below_mount(cgroup: &Path, mount: &Path) -> String {
    format!("the cgroup /{}", cgroup.strip_prefix(mount).unwrap_or(cgroup).display())
}

/// The name of an interface as a client.
pub fn interface_client(interface: &str) -> String {
    format!("the interface {interface}")
}

fn read_names() -> HashMap<u16, String> {
    let mount = cgroup2_mount().unwrap_or_default();
    let number = |witness: Witness| witness.bits() as u16;
    let cgroups = cgroup_paths()
        .into_iter()
        .map(|(id, path)| (number(Witness::cgroup(id)), below_mount(&path, &mount)));
    let indices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten().filter_map(|at| {
        fs::read_to_string(at.path().join("ifindex")).ok()?.trim().parse::<u32>().ok()
    });
    let interfaces = indices.filter_map(|index| {
        Some((number(Witness::interface(index)), interface_client(&name_of(index)?)))
    });
    cgroups.chain(interfaces).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_and_interfaces_have_names() {
        let loopback = Witness::interface(1).bits() as u16;
        assert_eq!(client_name(loopback), "the interface lo");
        assert_eq!(client_name(0), "a cgroup that is gone");
    }
}
