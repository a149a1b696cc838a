//! Foreign programs on the traffic-control hooks of an interface.

use std::io;

use redirector_common::names::{self, Direction, PacketProgram};

use crate::{
    datapath::{
        attach::interfaces::{clsact, target::direction_name, tcx},
        pins::layout::Pins,
        sys,
    },
    net::route_socket::RouteSocket,
};

/// A program or a filter on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// The hook and the direction, as `tcx ingress`.
    pub(crate) hook: String,
    /// A program's ID; 0 for a filter without a program.
    pub(crate) id: u32,
    /// The name that a filter gives to its program, or a filter's kind.
    pub(crate) name: Option<String>,
    /// Whether it runs before ours; false where ours are not attached.
    pub(crate) runs_first: bool,
}

/// The foreign programs and filters on an interface, in the order in which they run.
pub(crate) fn neighbours(
    versions: &[Pins],
    interface: u32,
    socket: &mut RouteSocket,
) -> io::Result<Vec<Neighbour>> {
    let ours = our_links(versions, interface);
    let mut found = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        found.extend(on_tcx(interface, direction, &ours)?);
        found.extend(on_clsact(interface, direction, socket)?);
    }
    Ok(found)
}

/// None on a kernel without the hook.
fn on_tcx(interface: u32, direction: Direction, ours: &[u32]) -> io::Result<Vec<Neighbour>> {
    let listed = match tcx::list(interface, direction) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        listed => listed?,
    };
    let is_ours = |attached: &tcx::Attached| ours.contains(&attached.link);
    let first_of_ours = listed.iter().position(is_ours).unwrap_or(0);
    let foreign = listed.iter().enumerate().filter(|(_, attached)| !is_ours(attached));
    let neighbour = |(place, attached): (usize, &tcx::Attached)| Neighbour {
        hook: format!("tcx {}", direction_name(direction)),
        id: attached.program,
        name: None,
        runs_first: place < first_of_ours,
    };
    Ok(foreign.map(neighbour).collect())
}

fn on_clsact(
    interface: u32,
    direction: Direction,
    socket: &mut RouteSocket,
) -> io::Result<Vec<Neighbour>> {
    let listed = clsact::list(socket, interface, direction)?;
    let first_of_ours = listed.iter().position(clsact::Filter::is_ours).unwrap_or(0);
    let foreign = listed.iter().enumerate().filter(|(_, filter)| !filter.is_ours());
    let neighbour = |(place, filter): (usize, &clsact::Filter)| Neighbour {
        hook: format!("clsact {}", direction_name(direction)),
        id: filter.program.unwrap_or_default(),
        name: filter.name.clone().or_else(|| Some(filter.kind.clone())),
        runs_first: place < first_of_ours,
    };
    Ok(foreign.map(neighbour).collect())
}

/// The IDs of our links to an interface.
fn our_links(versions: &[Pins], interface: u32) -> Vec<u32> {
    let pin = |pins: &Pins, program: &PacketProgram| {
        let link = sys::open_pin(&pins.interface_link(interface, program.name)).ok()?;
        Some(sys::link_id_and_interface(&link).ok()?.0)
    };
    versions
        .iter()
        .flat_map(|pins| {
            names::PACKET_PROGRAMS.iter().filter_map(move |program| pin(pins, program))
        })
        .collect()
}
