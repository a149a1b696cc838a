//! What is attached to interfaces, from the pins and the qdiscs, without an agent.

use std::ffi::CStr;

use redirector_common::{
    names::{self, Direction},
    packet::interface::Interface,
};

use crate::{
    datapath::{
        attach::interfaces::{
            clsact, elements,
            removal::{self, InterfacePins},
            target::{InterfaceAttachment, TcHook, role_of},
        },
        pins::layout::{Pins, open_pinned_hash},
        sys,
    },
    net::route_socket::RouteSocket,
};

/// The interfaces that the programs of these versions are attached to. What can't be read is left
/// out: another network namespace, say.
pub(crate) fn attachments(versions: &[Pins]) -> Vec<InterfaceAttachment> {
    let mut socket = None;
    let mut found = Vec::new();
    for pins in versions {
        let map = open_pinned_hash::<u32, Interface>(pins, names::INTERFACES).ok();
        for index in pins.interfaces().unwrap_or_default() {
            let element = map.as_ref().and_then(|map| elements::read(map, index).ok().flatten());
            found.extend(attachment(pins, index, element, &mut socket));
        }
    }
    found
}

fn attachment(
    pins: &Pins,
    index: u32,
    element: Option<Interface>,
    socket: &mut Option<RouteSocket>,
) -> Option<InterfaceAttachment> {
    let state = InterfacePins::new(pins, index);
    let (hook, programs) = match state.has_filters() {
        true => (TcHook::Clsact, filters(index, socket)),
        false => (TcHook::Tcx, live_links(pins, &state, index)),
    };
    Some(InterfaceAttachment {
        index,
        name: name_of(index),
        role: role_of(programs.iter().map(String::as_str))?,
        hook,
        programs,
        redirects: element.is_some_and(|element| element.flags & Interface::FLAG_REDIRECTS != 0),
        reattached: 0,
        preceded_by: Vec::new(),
    })
}

/// The programs with a link to the interface.
fn live_links(pins: &Pins, state: &InterfacePins<'_>, index: u32) -> Vec<String> {
    let is_live = |program: &String| {
        sys::open_pin(&pins.interface_link(index, program))
            .and_then(|link| sys::link_id_and_interface(&link))
            .is_ok_and(|(_, interface)| interface == index)
    };
    state.linked_programs().into_iter().filter(is_live).collect()
}

/// The programs in our filters of the interface.
fn filters(index: u32, socket: &mut Option<RouteSocket>) -> Vec<String> {
    let Ok(socket) = removal::open(socket) else { return Vec::new() };
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(|direction| clsact::list(socket, index, direction).unwrap_or_default())
        .filter(clsact::Filter::is_ours)
        .filter_map(|filter| filter.name)
        .collect()
}

/// The name of an interface of the calling thread's network namespace.
pub(crate) fn name_of(index: u32) -> Option<String> {
    let mut buffer = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function requires, and lives.
    let name = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr()) };
    // SAFETY: on success it is the buffer, with a terminated name.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}
