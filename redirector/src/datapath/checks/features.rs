//! What kernels newer than 5.10 offer, feature by feature, and what the datapath does without.
//! `redirector check` reports it for this kernel, `docs/reference/kernels.md` for all.

use procfs::process::MountInfo;

use crate::datapath::checks::check::Check;

/// A feature that not every supported kernel has.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The check's name.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: (u8, u8),
    /// The behaviour with it.
    pub with: &'static str,
    /// The behaviour without it.
    pub without: &'static str,
    /// The remedy.
    pub remedy: &'static str,
}

/// In the order of the report.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "refusal",
        since: (6, 1),
        with: "a refused connect gets ECONNREFUSED (bpf_set_retval)",
        without: "a refused connect gets EPERM: connect programs have no bpf_set_retval, and the \
            loader removes the calls",
        remedy: "nothing is needed; a 6.1 kernel returns ECONNREFUSED",
    },
    Feature {
        name: "keepalive",
        since: (6, 0),
        with: "idle_timeout only lowers keepalive times that an application has set \
            (bpf_getsockopt)",
        without: "idle_timeout sets its keepalive on every socket of the route: programs can't see \
            what an application has set",
        remedy: "nothing is needed; leave `idle_timeout` out where an application's own keepalive \
            must stay",
    },
    Feature {
        name: "tcx",
        since: (6, 6),
        with: "packet programs are links to the TCX hook, in front of other programs",
        without: "packet programs are filters of the clsact qdisc: behind another owner's filter \
            that ends the chain they see nothing",
        remedy: "nothing is needed; `foreign_filters` lists other owners' filters",
    },
];

impl Feature {
    /// The row for this kernel.
    pub(crate) fn check(&self, kernel_at_least: impl Fn(u8, u8) -> bool) -> Check {
        let (major, minor) = self.since;
        if kernel_at_least(major, minor) {
            Check::ok(self.name, self.with)
        } else {
            Check::warning(
                self.name,
                format!("{} (before {major}.{minor})", self.without),
                self.remedy,
            )
        }
    }
}

/// The cgroup v1 controllers that change the cgroup2 cgroup of a socket on old kernels.
const V1_CONTROLLERS: [&str; 2] = ["net_cls", "net_prio"];

/// Before 5.15 (8520e224f547), sockets of a process in a cgroup of net_cls or net_prio belong to
/// the root of cgroup2.
pub(crate) fn socket_cgroups(mounts: &[MountInfo], has_both: bool, at_root_only: bool) -> Check {
    const NAME: &str = "hybrid";
    let mounted: Vec<&str> =
        V1_CONTROLLERS.into_iter().filter(|controller| is_mounted(mounts, controller)).collect();
    match mounted.as_slice() {
        [] => Check::ok(NAME, "no hierarchy of net_cls or net_prio is mounted"),
        _ if has_both || at_root_only => Check::ok(
            NAME,
            format!("{} and cgroup2 are both mounted, and sockets know both", mounted.join(", ")),
        ),
        _ => Check::warning(
            NAME,
            format!(
                "{} is mounted: before 5.15 the sockets of its cgroups are the root's in cgroup2, \
                    and programs below the root miss them",
                mounted.join(", ")
            ),
            "set `attach.cgroups = [\"/\"]`, or use no net_cls and net_prio, or run a 5.15 kernel",
        ),
    }
}

/// Whether a cgroup v1 hierarchy with this controller is mounted.
fn is_mounted(mounts: &[MountInfo], controller: &str) -> bool {
    mounts
        .iter()
        .any(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller))
}

#[cfg(test)]
mod tests {
    use procfs::{FromRead as _, process::MountInfos};

    use super::*;
    use crate::datapath::checks::check::Outcome;

    #[test]
    fn the_reference_matches_the_checks() {
        use std::fmt::Write as _;
        let mut text = String::from(
            "| `redirector check` | kernel | from it on | before it |\n|---|---|---|---|\n",
        );
        for Feature { name, since: (major, minor), with, without, .. } in FEATURES {
            let _ = writeln!(text, "| `{name}` | {major}.{minor} | {with} | {without} |");
        }
        crate::test_support::assert_generated("kernels.md", &text);
    }

    #[test]
    fn a_kernel_lacks_the_features_of_newer_ones() {
        let on = |kernel: (u8, u8)| {
            let checks = FEATURES
                .iter()
                .map(|feature| feature.check(|major, minor| kernel >= (major, minor)));
            checks
                .filter(|check| check.outcome == Outcome::Warning)
                .map(|check| check.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (on((5, 10)), on((6, 0)), on((6, 5))),
            (
                vec!["refusal".to_owned(), "keepalive".to_owned(), "tcx".to_owned()],
                vec!["refusal".to_owned(), "tcx".to_owned()],
                vec!["tcx".to_owned()]
            )
        );
        assert!(on((6, 6)).is_empty());
        let check = FEATURES[0].check(|_, _| false);
        assert!(check.detail.ends_with("(before 6.1)") && check.remedy.is_some(), "{check:?}");
    }

    #[test]
    fn net_cls_is_a_warning_only_before_5_15_and_below_the_root() {
        let v1 =
            "33 30 0:25 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio\n";
        let v2 = "34 30 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let outcome = |mounts: &str, has_both, at_root_only| {
            let mounts = MountInfos::from_read(mounts.as_bytes()).expect("mountinfo").0;
            socket_cgroups(&mounts, has_both, at_root_only).outcome
        };
        assert_eq!(outcome(v2, false, false), Outcome::Ok);
        let both = format!("{v1}{v2}");
        assert_eq!(
            (outcome(&both, true, false), outcome(&both, false, true)),
            (Outcome::Ok, Outcome::Ok)
        );
        assert_eq!(outcome(&both, false, false), Outcome::Warning);
    }
}
