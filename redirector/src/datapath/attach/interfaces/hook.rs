//! The two ways to attach a program to an interface, with the same steps.

use std::{io, os::fd::OwnedFd};

use redirector_common::names::{self, Direction};
use tracing::debug;

use crate::{
    datapath::{
        attach::interfaces::{
            clsact::{self, Qdisc},
            removal::{self, InterfacePins},
            target::{InterfaceTarget, TcHook, direction},
            tcx,
        },
        error::{self, DatapathError},
        load::object::{self, Object},
        pins::{layout, layout::Pins},
        sys,
    },
    net::route_socket::RouteSocket,
};

/// A link, which is held: it stays attached without its pin. Empty for a filter.
#[derive(Debug, Default)]
pub(crate) struct HeldLink {
    /// Its ID; 0 for a filter.
    pub(crate) id: u32,
    descriptor: Option<OwnedFd>,
}

/// The result of attaching one program.
#[derive(Debug)]
pub(crate) enum Step {
    /// The program under a live link, or in a filter, was replaced.
    Swapped(HeldLink),
    /// It was attached.
    Attached(HeldLink),
}

impl Step {
    /// The link.
    pub(crate) fn into_link(self) -> HeldLink {
        let (Self::Swapped(link) | Self::Attached(link)) = self;
        link
    }
}

/// The programs that run before ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preceding {
    /// Each as `tcx ingress: ID 17`.
    pub(crate) labels: Vec<String>,
    /// Whether ours gets in front of them by being attached again.
    pub(crate) can_be_overtaken: bool,
}

/// The hook of this kernel.
pub(crate) fn detect() -> TcHook {
    if tcx::is_supported() { TcHook::Tcx } else { TcHook::Clsact }
}

/// One program's place on an interface.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) pins: &'p Pins,
    pub(crate) target: &'p InterfaceTarget,
    pub(crate) program: &'static str,
}

impl Place<'_> {
    fn direction(&self) -> Direction {
        direction(self.program).unwrap_or(Direction::Egress)
    }

    fn state(&self) -> InterfacePins<'_> {
        InterfacePins::new(self.pins, self.target.index)
    }

    fn failed(&self, error: io::Error) -> DatapathError {
        error::from_io(&format!("attach {} to {}", self.program, self.target.name), error)
    }

    /// Swaps the program under the pinned link, or attaches and pins it. A link of an interface
    /// that is gone is removed: its index has been given to another one.
    pub(crate) fn link(&self, object: &mut Object) -> Result<Step, DatapathError> {
        let pin = self.pins.interface_link(self.target.index, self.program);
        let program = object::program_fd(object.program(self.program)?)?;
        if pin.exists() {
            let link = sys::open_pin(&pin).map_err(|error| self.failed(error))?;
            if let Some(id) = self.live_link(&link).map_err(|error| self.failed(error))?
                && sys::update_link(&link, program).is_ok()
            {
                debug!(pin = %pin.display(), "swapped");
                return Ok(Step::Swapped(HeldLink { id, descriptor: Some(link) }));
            }
            drop(link);
            self.state().detach_link(self.program)?;
        }
        let link = tcx::attach_first(program, self.target.index, self.direction())
            .map_err(|error| self.failed(error))?;
        if !self.pins.are_lost() {
            layout::pin(&link, &pin)?;
        }
        debug!(pin = %pin.display(), "attached");
        let (id, _) = sys::link_id_and_interface(&link).map_err(|error| self.failed(error))?;
        Ok(Step::Attached(HeldLink { id, descriptor: Some(link) }))
    }

    /// Pins a link again, or records the filters again. False if nothing was removed.
    pub(crate) fn restore_pin(&self, link: &HeldLink) -> Result<bool, DatapathError> {
        let pin = self.pins.interface_link(self.target.index, self.program);
        match &link.descriptor {
            Some(link) if !pin.exists() && !self.pins.are_lost() => {
                layout::pin(link, &pin).map(|()| true)
            }
            None if !self.state().has_filters() && !self.pins.are_lost() => {
                self.state().create_dir()?;
                self.state().record_filters(false).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// The ID of a link if it is on this interface. The interface's index alone does not show that:
    /// an interface that was moved to another network namespace may keep it there.
    fn live_link(&self, link: &OwnedFd) -> io::Result<Option<u32>> {
        let (id, interface) = sys::link_id_and_interface(link)?;
        if interface != self.target.index {
            return Ok(None);
        }
        let listed = tcx::list(self.target.index, self.direction())?;
        Ok(listed.iter().any(|attached| attached.link == id).then_some(id))
    }

    /// Replaces the program in our filter, or adds it.
    pub(crate) fn filter(
        &self,
        object: &mut Object,
        socket: &mut Option<RouteSocket>,
    ) -> Result<Step, DatapathError> {
        let program = object::program_fd(object.program(self.program)?)?;
        let socket = removal::open(socket).map_err(|error| self.failed(error))?;
        let index = self.target.index;
        let qdisc = clsact::add_qdisc(socket, index).map_err(|error| self.failed(error))?;
        if qdisc == Qdisc::Excluded {
            return Err(DatapathError::call(
                format!("attach {} to {}", self.program, self.target.name),
                "it has an `ingress` qdisc, which excludes `clsact`: its owner has to replace it \
                    (`tc qdisc show` names it)",
            ));
        }
        self.state().record_filters(qdisc == Qdisc::Added)?;
        let replaced = clsact::attach(socket, (index, self.direction()), (self.program, program))
            .map_err(|error| self.failed(error))?;
        let none = HeldLink::default();
        Ok(if replaced { Step::Swapped(none) } else { Step::Attached(none) })
    }

    /// The programs that run before ours; none if ours is not there any more.
    pub(crate) fn preceding(
        &self,
        hook: TcHook,
        link: u32,
        socket: &mut Option<RouteSocket>,
    ) -> Result<Option<Preceding>, DatapathError> {
        let found = match hook {
            TcHook::Tcx => self.preceding_links(link),
            TcHook::Clsact => self.preceding_filters(socket),
        };
        found.map_err(|error| {
            let name = &self.target.name;
            error::from_io(&format!("list the programs on {name}"), error)
        })
    }

    fn preceding_links(&self, link: u32) -> io::Result<Option<Preceding>> {
        let direction = self.direction();
        let listed = tcx::list(self.target.index, direction)?;
        let ours = listed.iter().position(|attached| attached.link == link);
        Ok(ours.map(|ours| Preceding {
            labels: listed[..ours].iter().map(|other| tcx::label(direction, other)).collect(),
            can_be_overtaken: ours > 0,
        }))
    }

    fn preceding_filters(&self, socket: &mut Option<RouteSocket>) -> io::Result<Option<Preceding>> {
        let direction = self.direction();
        let listed = clsact::list(removal::open(socket)?, self.target.index, direction)?;
        let ours = listed.iter().position(clsact::Filter::is_ours);
        Ok(ours.map(|ours| Preceding {
            labels: listed[..ours].iter().map(|other| clsact::label(direction, other)).collect(),
            can_be_overtaken: listed[..ours]
                .iter()
                .any(|other| other.priority == listed[ours].priority),
        }))
    }

    /// Attaches the program again in front of the others, and returns its link.
    pub(crate) fn move_to_front(
        &self,
        hook: TcHook,
        object: &mut Object,
        (link, socket): (&HeldLink, &mut Option<RouteSocket>),
    ) -> Result<Step, DatapathError> {
        self.state().create_dir()?;
        match hook {
            TcHook::Tcx => self.replace_link(object, link),
            TcHook::Clsact => {
                removal::open(socket)
                    .and_then(|socket| clsact::detach(socket, self.target.index, self.direction()))
                    .map_err(|error| self.failed(error))?;
                self.filter(object, socket)
            }
        }
    }

    /// A hook takes a program once, and detaching it takes the kernel 16 ms. So the old link gets a
    /// program that does nothing here until the new link is in front.
    fn replace_link(&self, object: &mut Object, held: &HeldLink) -> Result<Step, DatapathError> {
        let pin = self.pins.interface_link(self.target.index, self.program);
        let held = held.descriptor.as_ref().and_then(|link| link.try_clone().ok());
        let Some(old) = held.or_else(|| sys::open_pin(&pin).ok()) else {
            return self.link(object);
        };
        let idle =
            if self.program == names::HOST_EGRESS { names::EGRESS } else { names::HOST_EGRESS };
        let idle = object::program_fd(object.program(idle)?)?;
        // Fails for the link of an interface that is gone.
        let _ = sys::update_link(&old, idle);
        layout::remove(&pin)?;
        let step = self.link(object);
        let _ = sys::detach_link(&old);
        step
    }

    /// Attaches or swaps the program.
    pub(crate) fn attach(
        &self,
        hook: TcHook,
        object: &mut Object,
        socket: &mut Option<RouteSocket>,
    ) -> Result<Step, DatapathError> {
        match hook {
            TcHook::Tcx => self.link(object),
            TcHook::Clsact => self.filter(object, socket),
        }
    }

    /// Swaps the program under an older version's link and moves its pin to our directory. An older
    /// version's filter is the same one as ours.
    pub(crate) fn take_over(&self, old: &Pins, object: &mut Object) -> Result<(), DatapathError> {
        let from = old.interface_link(self.target.index, self.program);
        let to = self.pins.interface_link(self.target.index, self.program);
        if !from.exists() || to.exists() {
            return Ok(());
        }
        let place = Place { pins: old, ..*self };
        let link = sys::open_pin(&from).map_err(|error| self.failed(error))?;
        if place.live_link(&link).map_err(|error| self.failed(error))?.is_none() {
            return layout::remove(&from).map(drop);
        }
        let program = object::program_fd(object.program(self.program)?)?;
        sys::update_link(&link, program).map_err(|error| self.failed(error))?;
        std::fs::rename(&from, &to).map_err(|error| {
            DatapathError::call(format!("move {} to {}", from.display(), to.display()), error)
        })?;
        debug!(pin = %to.display(), "taken over");
        Ok(())
    }
}
