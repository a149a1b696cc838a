//! Guests end to end, with the agent that users run: pods, a micro-VM, gVisor, nested docker,
//! podman, macvlan, and processes of the host's network. Their resolver is none of ours: what it
//! is asked shows which names are answered in place, and what it answers must arrive octet for
//! octet.

mod attacks;
mod devices;
mod field;
mod killed;
mod loads;
mod neighbours;
mod places;
mod rootless;
mod updates;
