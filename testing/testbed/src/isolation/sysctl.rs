//! The network settings that the rigs rely on.
//!
//! A new network namespace copies `net.ipv4.conf` from the host's first one, and with
//! `net.core.devconf_inherit_init_net` the IPv6 settings too: a host that forwards (any with
//! Docker) would make every rig forward. So each namespace gets these values before it has a
//! device.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Relative to `/proc/sys/net`, the kernel's own defaults. `conf/all` comes first: setting it
/// changes `conf/default`.
const SETTINGS: &[(&str, &str)] = &[
    // What leaks from a node ends at the customer's gateway. The node forwards for its pods, and
    // sets that itself.
    ("ipv4/conf/all/forwarding", "0"),
    ("ipv4/conf/default/forwarding", "0"),
    // Load balancers answer from addresses that a strict filter would not expect on that link.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // A packet from one of the machine's own addresses comes from outside: a leak.
    ("ipv4/conf/all/accept_local", "0"),
    ("ipv4/conf/default/accept_local", "0"),
    // Only loopback's own device delivers to 127.0.0.0/8.
    ("ipv4/conf/all/route_localnet", "0"),
    ("ipv4/conf/default/route_localnet", "0"),
    // Every address of a node answers on its one link.
    ("ipv4/conf/all/arp_ignore", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    ("ipv4/conf/all/arp_filter", "0"),
    ("ipv4/conf/default/arp_filter", "0"),
    ("ipv4/conf/all/arp_announce", "0"),
    ("ipv4/conf/default/arp_announce", "0"),
    // An address that is removed takes those of its network along that were added after it.
    ("ipv4/conf/all/promote_secondaries", "0"),
    ("ipv4/conf/default/promote_secondaries", "0"),
    // How long a connect to a silent server takes; tests of timeouts set their own.
    ("ipv4/tcp_syn_retries", "6"),
    ("ipv4/tcp_syn_linear_timeouts", "4"),
    // Routes to VIPs of IPv6 are tested beside those of IPv4.
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
];

/// Sets them in the calling thread's network namespace.
pub(crate) fn set_defaults() -> Result<()> {
    for (setting, value) in SETTINGS {
        set(setting, value)?;
    }
    Ok(())
}

/// Sets one, named relative to `/proc/sys/net`. A setting that this kernel lacks has no effect that
/// a test could rely on.
pub(crate) fn set(setting: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net").join(setting);
    if !path.exists() {
        return Ok(());
    }
    fs::write(&path, value).with_context(|| format!("failed to write {}", path.display()))
}
