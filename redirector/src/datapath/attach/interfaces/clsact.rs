//! Filters of the clsact qdisc, for kernels without the TCX hook. The qdisc keeps them without an
//! agent; a filter with the same priority and handle is replaced in place.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use redirector_common::names::{self, Direction};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
            TcOption,
        },
    },
};

use crate::{datapath::attach::interfaces::target::direction_name, net::route_socket::RouteSocket};

/// The handle of our filters, "rd": another owner's filter of the same priority has another one.
const HANDLE: u32 = 0x7264_0001;

/// The first priority there is. Filters of one priority and kind run from the newest to the oldest.
const FIRST_PRIORITY: u16 = 1;

/// `ETH_P_ALL`, in network order.
const EVERY_PROTOCOL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// The kind of the qdisc.
const CLSACT: &str = "clsact";

/// The qdisc's own handle.
const QDISC_HANDLE: TcHandle = TcHandle { major: u16::MAX, minor: 0 };

/// A filter on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Its kind: `bpf`, `flower`, `u32`.
    pub(crate) kind: String,
    /// Its priority: the lowest runs first.
    pub(crate) priority: u16,
    protocol: u16,
    handle: u32,
    /// The name that its owner gave to a program.
    pub(crate) name: Option<String>,
    /// A program's ID.
    pub(crate) program: Option<u32>,
}

impl Filter {
    /// Whether it is one of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.handle == HANDLE
            && self.kind == TcFilterBpf::KIND
            && self.name.as_ref().is_some_and(|name| name.starts_with(names::PROGRAM_PREFIX))
    }

    /// Whether ours may have its priority: all filters of one have one kind and protocol.
    fn allows_ours(&self) -> bool {
        self.kind == TcFilterBpf::KIND && self.protocol == EVERY_PROTOCOL
    }
}

/// What [`add_qdisc`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qdisc {
    /// None: it was added.
    Added,
    /// It was there.
    Present,
    /// An `ingress` qdisc, in its place. A filter for egress would run at its ingress.
    Excluded,
}

/// Adds the qdisc if there is none.
pub(crate) fn add_qdisc(socket: &mut RouteSocket, interface: u32) -> io::Result<Qdisc> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(interface));
    match socket.change(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => return Ok(Qdisc::Added),
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        Err(_) => {}
    }
    // The kernel compares the kind.
    match socket.change(RouteNetlinkMessage::GetQueueDiscipline(qdisc(interface)), 0) {
        Ok(()) => Ok(Qdisc::Present),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Qdisc::Excluded),
        Err(error) => Err(error),
    }
}

/// Removes the qdisc if no filter is left in it.
pub(crate) fn remove_empty_qdisc(socket: &mut RouteSocket, interface: u32) -> io::Result<bool> {
    for direction in [Direction::Ingress, Direction::Egress] {
        if !list(socket, interface, direction)?.is_empty() {
            return Ok(false);
        }
    }
    socket.change(RouteNetlinkMessage::DelQueueDiscipline(qdisc(interface)), 0).map(|()| true)
}

/// The interfaces that have the qdisc.
pub(crate) fn interfaces(socket: &mut RouteSocket) -> io::Result<Vec<u32>> {
    let all = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let found = socket.list(all)?.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) if kind_of(&qdisc) == Some(CLSACT) => {
            u32::try_from(qdisc.header.index).ok()
        }
        _ => None,
    });
    Ok(found.collect())
}

/// The filters of a direction, in the order in which they run; none without the qdisc.
pub(crate) fn list(
    socket: &mut RouteSocket,
    interface: u32,
    direction: Direction,
) -> io::Result<Vec<Filter>> {
    let message = TcMessage::from_parts(header(interface, direction), Vec::new());
    match socket.list(RouteNetlinkMessage::GetTrafficFilter(message)) {
        Ok(messages) => Ok(messages.iter().filter_map(filter).collect()),
        // Without the qdisc; EINVAL up to 5.x.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Attaches `program` as a filter, in front of others as far as their priorities allow; replaces
/// ours in place if it is there, and returns whether it was.
pub(crate) fn attach(
    socket: &mut RouteSocket,
    (interface, direction): (u32, Direction),
    (name, program): (&str, BorrowedFd<'_>),
) -> io::Result<bool> {
    let present = list(socket, interface, direction)?;
    let replaced = present.iter().find(|filter| filter.is_ours());
    let priority = replaced.map_or_else(|| free_priority(&present), |ours| ours.priority);
    let options = vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ];
    let mut message = ours(interface, direction, priority);
    message.attributes.push(TcAttribute::Options(options));
    let request = RouteNetlinkMessage::NewTrafficFilter(message);
    socket.change(request, NLM_F_CREATE).map(|()| replaced.is_some())
}

/// Removes our filter. False if there is none.
pub(crate) fn detach(
    socket: &mut RouteSocket,
    interface: u32,
    direction: Direction,
) -> io::Result<bool> {
    let present = list(socket, interface, direction)?;
    let Some(filter) = present.iter().find(|filter| filter.is_ours()) else { return Ok(false) };
    let message = ours(interface, direction, filter.priority);
    socket.change(RouteNetlinkMessage::DelTrafficFilter(message), 0).map(|()| true)
}

/// A foreign filter, for messages.
pub(crate) fn label(direction: Direction, other: &Filter) -> String {
    let id = other.program.map(|id| format!(" (ID {id})")).unwrap_or_default();
    let Filter { kind, priority, name, .. } = other;
    let what = name.as_ref().unwrap_or(kind);
    format!("clsact {}: {what}{id}, priority {priority}", direction_name(direction))
}

/// The first priority that ours may have.
fn free_priority(present: &[Filter]) -> u16 {
    let refused = |priority: &u16| {
        present.iter().any(|filter| filter.priority == *priority && !filter.allows_ours())
    };
    (FIRST_PRIORITY..u16::MAX).find(|priority| !refused(priority)).unwrap_or(u16::MAX)
}

fn qdisc(interface: u32) -> TcMessage {
    let mut message = TcMessage::with_index(interface as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = QDISC_HANDLE;
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

fn ours(interface: u32, direction: Direction, priority: u16) -> TcMessage {
    let mut header = header(interface, direction);
    header.handle = HANDLE.into();
    header.info = (u32::from(priority) << 16) | u32::from(EVERY_PROTOCOL);
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())])
}

fn header(interface: u32, direction: Direction) -> TcHeader {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    let parent = TcHandle { major: u16::MAX, minor };
    TcHeader { index: interface as i32, parent, ..TcHeader::default() }
}

fn kind_of(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

/// A filter in a list, which also has an entry without a handle for each priority.
fn filter(message: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let handle = u32::from(message.header.handle);
    let in_other_chain = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Chain(1..));
    if message.attributes.iter().any(in_other_chain) {
        // It runs only when a filter of the first chain jumps to it.
        return None;
    }
    let mut filter = Filter {
        kind: kind_of(message).filter(|_| handle != 0)?.to_owned(),
        priority: (message.header.info >> 16) as u16,
        protocol: message.header.info as u16,
        handle,
        name: None,
        program: None,
    };
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
            _ => {}
        }
    }
    Some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(priority: u16, kind: &str, protocol: u16) -> Filter {
        Filter { kind: kind.into(), priority, protocol, handle: 1, name: None, program: None }
    }

    #[test]
    fn ours_share_the_first_priority_only_with_their_kind() {
        let all = EVERY_PROTOCOL;
        let ip = (libc::ETH_P_IP as u16).to_be();
        assert_eq!(free_priority(&[]), 1);
        assert_eq!(free_priority(&[at(1, "bpf", all)]), 1);
        assert_eq!(free_priority(&[at(1, "bpf", ip), at(2, "flower", all), at(9, "u32", ip)]), 3);
    }

    #[test]
    fn a_filter_is_ours_by_handle_and_name() {
        let named = |name: &str, handle| Filter {
            name: Some(name.to_owned()),
            handle,
            ..at(1, "bpf", EVERY_PROTOCOL)
        };
        assert!(named(names::EGRESS, HANDLE).is_ours());
        assert!(!named("cil_to_container", HANDLE).is_ours());
        assert!(!named(names::EGRESS, 1).is_ours());
    }
}
