//! Who is served which way; pure.

use std::cmp::Reverse;

use serde::Serialize;

use crate::control::{
    api::{InterfaceInfo, PacketInfo, ServedBy, interface_label},
    count,
};

/// Interfaces that are named.
const SHOWN: usize = 3;

/// Open connections by the way that serves them, and the interfaces that packets of executors pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Served {
    /// Open connections of processes in attached cgroups.
    pub(super) by_cgroup: u64,
    /// Open connections of guests.
    pub(super) by_packet: u64,
    pub(super) interfaces: Vec<InterfaceRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct InterfaceRow {
    pub(super) index: u32,
    pub(super) name: Option<String>,
    pub(super) names: ServedBy,
    pub(super) connects: ServedBy,
    /// Why nothing serves it, or not everything.
    pub(super) reason: Option<String>,
    /// Open connections of its guest; null where no guest is served.
    pub(super) open: Option<u64>,
}

impl Served {
    /// Of `open` connections in all.
    pub(super) fn new(packet: &PacketInfo, open: u64) -> Self {
        let row = |at: &InterfaceInfo| InterfaceRow {
            index: at.index,
            name: at.name.clone(),
            names: at.names,
            connects: at.connects,
            reason: at.reason.clone(),
            open: at.flows.map(|flows| flows.open),
        };
        let mut interfaces: Vec<_> = packet.interfaces.iter().map(row).collect();
        interfaces.sort_by_key(|row| Reverse(row.open));
        let by_packet = interfaces.iter().filter_map(|row| row.open).sum();
        Self { by_cgroup: open.saturating_sub(by_packet), by_packet, interfaces }
    }

    /// As a line, where a guest may be.
    pub(super) fn line(&self) -> Option<String> {
        let number = |is: fn(&&InterfaceRow) -> bool| self.interfaces.iter().filter(is).count();
        let guests = number(|row| row.connects == ServedBy::Packet);
        let names_only =
            number(|row| row.names == ServedBy::Packet && row.connects == ServedBy::None);
        let busiest = self.interfaces.iter().filter(|row| row.open.is_some_and(|open| open > 0));
        let busiest: Vec<_> = busiest.take(SHOWN).map(InterfaceRow::text).collect();
        let busiest = match busiest.is_empty() {
            true => String::new(),
            false => format!(" ({})", busiest.join(", ")),
        };
        let mut line = format!(
            "open: {} by cgroup, {} by packet at {}{busiest}",
            self.by_cgroup,
            self.by_packet,
            count(guests, "interface")
        );
        if names_only > 0 {
            line.push_str(&format!("; names only at {}", count(names_only, "interface")));
        }
        (guests + names_only > 0).then_some(line)
    }
}

impl InterfaceRow {
    fn text(&self) -> String {
        let name = interface_label(self.name.as_deref(), self.index);
        format!("{name} {}", self.open.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: u32, connects: ServedBy, open: Option<u64>) -> InterfaceRow {
        let name = (index < 10).then(|| format!("veth{index}"));
        InterfaceRow { index, name, names: ServedBy::Packet, connects, reason: None, open }
    }

    #[test]
    fn the_line_has_the_busiest_and_those_with_names_only() {
        let interfaces = vec![
            row(11, ServedBy::Packet, Some(9)),
            row(1, ServedBy::Packet, Some(4)),
            row(2, ServedBy::Packet, Some(0)),
            row(3, ServedBy::None, None),
            row(4, ServedBy::Cgroup, None),
        ];
        let served = Served { by_cgroup: 2, by_packet: 13, interfaces };
        assert_eq!(
            served.line().as_deref(),
            Some(
                "open: 2 by cgroup, 13 by packet at 3 interfaces (number 11 9, veth1 4); names \
                only at 1 interface"
            )
        );
    }

    #[test]
    fn a_host_without_guests_has_no_line() {
        let interfaces = vec![row(1, ServedBy::Cgroup, None)];
        assert_eq!(Served { by_cgroup: 2, by_packet: 0, interfaces }.line(), None);
        assert_eq!(Served::new(&PacketInfo::default(), 5).line(), None);
    }
}
