//! Detaches from interfaces by what is pinned, so that it works without an agent and after the
//! interface is gone. Nothing but our own links and filters is removed.

use std::io;

use redirector_common::names::{self, Direction};
use tracing::debug;

use crate::{
    datapath::{
        attach::interfaces::{
            clsact,
            target::{InterfaceRole, direction},
        },
        error::{self, DatapathError},
        pins::layout::{self, Pins},
        sys,
    },
    net::route_socket::RouteSocket,
};

/// The directory in an interface's that shows that our programs are filters of its clsact qdisc.
const CLSACT: &str = "clsact";
/// The directory that shows that we added that qdisc.
const QDISC_ADDED: &str = "clsact_added";

/// The pinned state of one interface in one version's directory.
pub(crate) struct InterfacePins<'p> {
    pins: &'p Pins,
    index: u32,
}

impl<'p> InterfacePins<'p> {
    pub(crate) fn new(pins: &'p Pins, index: u32) -> Self {
        Self { pins, index }
    }

    /// Whether there is any.
    pub(crate) fn exist(&self) -> bool {
        self.pins.interface_dir(self.index).is_dir()
    }

    pub(crate) fn create_dir(&self) -> Result<(), DatapathError> {
        match self.pins.are_lost() {
            true => Ok(()),
            false => layout::create_dir(&self.pins.interface_dir(self.index)),
        }
    }

    /// The programs with a pinned link.
    pub(crate) fn linked_programs(&self) -> Vec<String> {
        let names = layout::names_in(&self.pins.interface_dir(self.index));
        names.into_iter().filter(|name| name.starts_with(names::PROGRAM_PREFIX)).collect()
    }

    /// Whether our programs are filters.
    pub(crate) fn has_filters(&self) -> bool {
        self.marker(CLSACT).is_dir()
    }

    /// Records that our programs are filters, and whether we added the qdisc.
    pub(crate) fn record_filters(&self, added: bool) -> Result<(), DatapathError> {
        if self.pins.are_lost() {
            return Ok(());
        }
        let markers = [Some(CLSACT), added.then_some(QDISC_ADDED)];
        let mut markers = markers.into_iter().flatten().map(|name| self.marker(name));
        markers.try_for_each(|marker| layout::create_dir(&marker))
    }

    /// Moves the record of filters to another version's directory.
    pub(crate) fn move_filters(&self, to: &InterfacePins<'_>) -> Result<(), DatapathError> {
        if self.has_filters() {
            to.create_dir()?;
            to.record_filters(self.marker(QDISC_ADDED).is_dir())?;
            self.forget_filters()?;
        }
        Ok(())
    }

    /// Removes the record of filters, whose interface is gone.
    pub(crate) fn forget_filters(&self) -> Result<(), DatapathError> {
        layout::remove_dir(&self.marker(QDISC_ADDED))?;
        layout::remove_dir(&self.marker(CLSACT))
    }

    /// Removes the directory, if nothing is left in it.
    pub(crate) fn remove_dir(&self) -> Result<(), DatapathError> {
        layout::remove_dir(&self.pins.interface_dir(self.index))
    }

    /// Detaches every program of ours, those that rewrite first: nothing is rewritten that can't be
    /// restored. Returns how many there were.
    pub(crate) fn detach(&self, socket: &mut Option<RouteSocket>) -> Result<usize, DatapathError> {
        let mut programs = self.linked_programs();
        programs.sort_by_key(|name| direction(name) != Some(Direction::Ingress));
        let mut removed = 0;
        for program in programs {
            removed += usize::from(self.detach_link(&program)?);
        }
        if self.has_filters() {
            removed += self.detach_filters(socket)?;
        }
        self.remove_dir()?;
        Ok(removed)
    }

    /// Detaches programs that an interface of this role does not have: an earlier agent attached
    /// them. (A filter in the same direction is replaced in place.)
    pub(crate) fn release_others(
        &self,
        role: InterfaceRole,
        socket: &mut Option<RouteSocket>,
    ) -> Result<(), DatapathError> {
        for program in self.linked_programs() {
            if !role.programs().contains(&program.as_str()) {
                self.detach_link(&program)?;
            }
        }
        if role == InterfaceRole::Host && self.has_filters() {
            let failed = |error| detach_error(self.index, error);
            let socket = open(socket).map_err(failed)?;
            clsact::detach(socket, self.index, Direction::Ingress).map_err(failed)?;
        }
        Ok(())
    }

    /// Detaches a link and removes its pin. False if there is none.
    pub(crate) fn detach_link(&self, program: &str) -> Result<bool, DatapathError> {
        let pin = self.pins.interface_link(self.index, program);
        // Fails for an interface that is gone, whose links the kernel has detached.
        if let Err(error) = sys::open_pin(&pin).and_then(|link| sys::detach_link(&link)) {
            debug!(pin = %pin.display(), %error, "failed to detach the link");
        }
        layout::remove(&pin)
    }

    fn detach_filters(&self, socket: &mut Option<RouteSocket>) -> Result<usize, DatapathError> {
        let failed = |error| detach_error(self.index, error);
        let socket = open(socket).map_err(failed)?;
        let removed = detach_filters(socket, self.index).map_err(failed)?;
        // Without a filter of ours, the index may be another interface's by now.
        if removed > 0 && self.marker(QDISC_ADDED).is_dir() {
            clsact::remove_empty_qdisc(socket, self.index).map_err(failed)?;
        }
        self.forget_filters()?;
        Ok(removed)
    }

    fn marker(&self, name: &str) -> std::path::PathBuf {
        self.pins.interface_dir(self.index).join(name)
    }
}

/// Detaches everything of ours from every interface: what is pinned, and filters whose record was
/// lost with its bpf file system. Returns the numbers of interfaces and of programs.
pub(crate) fn detach_all(versions: &[Pins]) -> Result<(usize, usize), DatapathError> {
    let (mut interfaces, mut programs, mut socket) = (0, 0, None);
    for pins in versions {
        for index in pins.interfaces()? {
            programs += InterfacePins::new(pins, index).detach(&mut socket)?;
            interfaces += 1;
        }
    }
    let failed = |error| DatapathError::call("list the qdiscs of this host", error);
    let socket = open(&mut socket).map_err(failed)?;
    for index in clsact::interfaces(socket).map_err(failed)? {
        let removed = detach_filters(socket, index).map_err(|error| detach_error(index, error))?;
        programs += removed;
        interfaces += usize::from(removed > 0);
    }
    Ok((interfaces, programs))
}

/// The socket, opened at its first use.
pub(crate) fn open(socket: &mut Option<RouteSocket>) -> io::Result<&mut RouteSocket> {
    if socket.is_none() {
        *socket = Some(RouteSocket::open()?);
    }
    Ok(socket.as_mut().expect("it was opened above"))
}

/// Removes our filters of an interface, which may be gone.
fn detach_filters(socket: &mut RouteSocket, index: u32) -> io::Result<usize> {
    let mut removed = 0;
    for direction in [Direction::Ingress, Direction::Egress] {
        match clsact::detach(socket, index, direction) {
            Ok(found) => removed += usize::from(found),
            Err(error) if is_gone(&error) => return Ok(removed),
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Whether an interface does not exist any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

fn detach_error(index: u32, error: io::Error) -> DatapathError {
    error::from_io(&format!("detach from interface {index}"), error)
}
