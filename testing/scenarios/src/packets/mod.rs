//! Scenarios of the packet datapath: names that are answered in place, guests that are redirected.
//!
//! | file | is |
//! |---|---|
//! | `bare` | scenarios without the datapath |
//! | `fixture` | the datapath, attached to the places' interfaces |
//! | `names` | scenarios of names |
//! | `guests` | scenarios of guests' TCP |
//! | `lifecycle` | scenarios of attaching, of a missing agent, and of unloading |

mod bare;
mod fixture;
mod guests;
mod lifecycle;
mod names;

use anyhow::{Context as _, Result};

use self::fixture::PacketFixture;

type Scenario = fn(&mut PacketFixture) -> Result<()>;

/// In the order in which they are played. Each has VIPs of its own.
const ATTACHED: [(&str, Scenario); 26] = [
    ("names: answers", names::answers),
    ("names: wildcards", names::wildcards),
    ("names: reverse", names::reverse),
    ("names: pending", names::pending),
    ("names: others untouched", names::others_untouched),
    ("names: attached host sockets", names::attached_host_sockets),
    ("names: other host sockets", names::other_host_sockets),
    ("names: VLAN", names::tagged),
    ("names: netkit", names::netkit),
    ("names: macvlan", names::macvlan),
    ("names: ipvlan", names::ipvlan),
    ("names: counters", names::counters),
    ("guests: redirect IPv4", guests::redirect_v4),
    ("guests: redirect IPv6", guests::redirect_v6),
    ("guests: port map", guests::port_map),
    ("guests: reset", guests::reset),
    ("guests: pass", guests::pass),
    ("guests: refusing backend", guests::refusing_backend),
    ("guests: silent backend", guests::silent_backend),
    ("guests: bulk and path MTU", guests::bulk),
    ("guests: VLAN and netkit", guests::other_interfaces),
    ("guests: counters", guests::counters),
    ("guests: no agent", guests::no_agent),
    ("names: no agent", lifecycle::no_agent),
    ("names: clsact", lifecycle::clsact),
    ("guests: clsact", guests::clsact),
];

/// Plays all of them; `report` gets each outcome.
pub(crate) fn play(report: impl Fn(&str, &Result<()>)) -> Result<()> {
    for (name, scenario) in bare::ALL {
        report(name, &scenario());
    }
    let mut fixture = PacketFixture::new().context("failed to attach to interfaces")?;
    for (name, scenario) in ATTACHED {
        report(name, &scenario(&mut fixture));
    }
    report("packets: unload", &lifecycle::unload(fixture));
    Ok(())
}
