//! Containers of users without privileges: a process of the user's, in the node's network, asks and
//! connects for them. `auto` finds its cgroup, which is the one that systemd gives it.

use testbed::Sandbox;
use testbed::guests::{Carrier, Guest, RootlessGuest, RootlessPodman, RootlessUser};
use testbed::process::until;
use testbed::topology::{INTERNAL_NAME, RESOLVER_ADDRESS};

use crate::field::{Field, LIMIT, Way, resolv};

/// The cgroup of the user's own systemd.
const SYSTEMD: &str = "user.slice/user-70000.slice/user@70000.service";

/// A user whose process is in `process`, once the agent has attached to `attached`.
fn user(field: &Field, process: &str, attached: &str) -> RootlessUser {
    let user = RootlessUser::new(&field.rig, process, resolv()).unwrap();
    field.await_attached(&format!("{SYSTEMD}/{attached}"));
    user
}

/// Asserts that a container is served whose commands run in `sandbox`, and which asks its carrier.
#[track_caller]
fn assert_serves(field: &mut Field, user: &RootlessUser, carrier: Carrier, sandbox: Sandbox) {
    let guest = RootlessGuest::start(user, carrier, sandbox).unwrap();
    field.nameserver = carrier.nameserver().parse().unwrap();
    field.assert_serves(&guest, Way::Cgroup);
}

#[test]
fn a_container_behind_slirp4netns() {
    let mut field = Field::with_registry();
    let user = user(&field, "user.slice/podman-1.scope", "user.slice");
    let container = user.beside("user.slice/libpod-1.scope").unwrap();
    assert_serves(&mut field, &user, Carrier::Slirp4netns, container);
}

#[test]
fn a_container_behind_pasta() {
    let mut field = Field::with_registry();
    let user = user(&field, "user.slice/podman-1.scope", "user.slice");
    let container = user.beside("user.slice/libpod-1.scope").unwrap();
    assert_serves(&mut field, &user, Carrier::Pasta, container);
}

#[test]
fn a_container_behind_rootlesskit() {
    let mut field = Field::with_registry();
    let user = user(&field, "app.slice/docker.service", "app.slice/docker.service");
    let container = user.beside("user.slice/docker-1.scope").unwrap();
    assert_serves(&mut field, &user, Carrier::RootlessKit, container);
}

/// It has the node's resolver beside slirp4netns's, and asks both.
#[test]
fn a_container_of_rootless_podman() {
    let mut field = Field::with_registry();
    let user = user(&field, "user.slice/podman-1.scope", "user.slice");
    let guest = RootlessPodman::start(&field.rig, &user).unwrap();
    let resolv = guest.run("cat /etc/resolv.conf", LIMIT).unwrap().text();
    let asked = format!("nameserver 10.0.2.3\nnameserver {RESOLVER_ADDRESS}\n");
    assert_eq!(resolv, asked);
    field.assert_serves(&guest, Way::Cgroup);
}

/// Only the process in the node's network is in an attached cgroup.
#[test]
fn the_process_outside_is_what_counts() {
    for carrier in [Carrier::Slirp4netns, Carrier::Pasta] {
        let mut field = Field::with_registry();
        let user = user(&field, "user.slice/podman-1.scope", "user.slice");
        let container = user.host().outside().clone();
        assert_serves(&mut field, &user, carrier, container);
    }
}

/// The process outside has a socket of that family, too.
#[test]
fn an_ipv6_address_behind_slirp4netns() {
    let field = Field::with_ipv6();
    let user = user(&field, "user.slice/podman-1.scope", "user.slice");
    let container = user.host().outside().clone();
    let guest = RootlessGuest::start(&user, Carrier::Slirp4netns, container).unwrap();
    let fetch =
        format!("curl -6 -sS --max-time 5 -w '%{{remote_ip}}\\n' http://{INTERNAL_NAME}:8080/");
    let mut seen = String::new();
    // The container's own address comes with a router's advertisement.
    let is_greeted = || {
        seen = guest.run(&fetch, LIMIT)?.text();
        Ok(seen.starts_with("lb"))
    };
    until("an answer", LIMIT, is_greeted).unwrap_or_else(|error| panic!("{error}: {seen}"));
    assert!(seen.contains("\nfd00:198:18::"), "{seen}");
}

/// A container in an attached cgroup has no names if its process outside is in none: the queries
/// are that process's.
#[test]
fn a_process_outside_the_attached_cgroups_asks_the_resolver() {
    let field = Field::new();
    let user = RootlessUser::new(&field.rig, "session.slice/shell.service", resolv()).unwrap();
    let container = user.host().beside("kubepods/podjob").unwrap();
    let guest = RootlessGuest::start(&user, Carrier::Slirp4netns, container).unwrap();
    let answer = field.run(&guest, &format!("dig +short +time=5 +tries=1 {INTERNAL_NAME}"));
    assert_eq!(answer, "");
    assert_eq!(field.resolver.times_asked(INTERNAL_NAME), 1);
}
