//! The scenarios, in the order in which they are played. Each has VIPs of its own.

use anyhow::Result;

use crate::{attaching, connects, fixture::Fixture, interception, socket_options};

type Scenario = fn(&mut Fixture) -> Result<()>;

/// The scenario that only some machines play.
pub(crate) const DEBUG_LOG: &str = "debug log";

/// All but the last one, which unloads the datapath.
pub(crate) const ALL: [(&str, Scenario); 25] = [
    ("capabilities", connects::only_two_capabilities),
    ("check", attaching::check),
    ("redirect IPv4", connects::redirect_v4),
    ("redirect mapped IPv6", connects::redirect_mapped),
    ("redirect IPv6", socket_options::redirect_v6),
    ("getpeername", connects::peer_name),
    ("port map", connects::port_map),
    ("refusal", connects::refusal),
    ("pass", connects::pass),
    ("UDP untouched", connects::udp),
    ("refusing backend ejected", connects::refusing_backend),
    ("silent backend ejected", connects::silent_backend),
    ("source address", socket_options::source_address),
    ("keepalive", socket_options::keepalive),
    ("short SYN timeout", socket_options::short_syn_timeout),
    ("DNS intercepted", interception::intercept),
    ("DNS heartbeat", interception::heartbeat),
    ("counters balance", connects::balance),
    ("events", connects::events),
    ("adopt after restart", connects::adopt),
    ("swap under load", connects::swap),
    (DEBUG_LOG, attaching::debug_log),
    ("restored after a removal", attaching::restored),
    ("removed cgroup drains", attaching::removed_cgroup),
    ("upgrade from an older version", attaching::upgrade),
];
