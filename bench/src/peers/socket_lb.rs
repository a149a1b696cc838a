//! A stand-in for Cilium's socket load balancer, not Cilium: the hash look-ups of a connect as its
//! documentation describes them, and nothing else.
//!
//! The program at connect4 looks the service up by address and port, draws one of its slots, looks
//! up the slot and the slot's backend, and remembers the translation in an LRU map by socket cookie
//! and backend; the program at getpeername4 translates back from there. Cilium also has sessions,
//! source ranges, protocols, statistics and events, and is kept current by an agent.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use testbed::{Executor, Sandbox};

use super::{
    bpf_maps,
    cgroup_programs::{self, Attached, CONNECT4, GETPEERNAME4},
    peer::{BACKENDS, FIRST_VIP, Peer, Routes, vip},
    site::Site,
};
use crate::bpf::{
    self, ADD_IMMEDIATE, CALL, EXIT, Instruction, JUMP_EQUAL, MOV, MOV_IMMEDIATE, SOCKET_COOKIE,
    STORE_DOUBLE, load_address, load_map,
};

// Types of maps (`enum bpf_map_type`).
const HASH: u32 = 1;
const LRU_HASH: u32 = 9;
/// Cilium's default size of a load balancing map, twice: a service has two entries here.
const SERVICES: u32 = 2 * 65_536;
/// Entries of the LRU map, Cilium's default.
const REVERSE: u32 = 65_536;

/// A client whose connects the programs translate.
pub(crate) struct SocketLb {
    port: u16,
    routes: u32,
    services: OwnedFd,
    backends: OwnedFd,
    reverse: OwnedFd,
    _attached: Attached,
    executor: Executor,
}

impl SocketLb {
    /// Loads and attaches the programs, without services.
    pub(crate) fn new(site: &Site) -> Result<Self> {
        let executor = site.executor("socketlb")?;
        let map = |kind, key, value, entries| {
            bpf::create_map(kind, key, value, entries).context("failed to create a map")
        };
        let services = map(HASH, 12, 8, SERVICES)?;
        let backends = map(HASH, 4, 8, SERVICES)?;
        let reverse = map(LRU_HASH, 16, 8, REVERSE)?;
        let cgroup = cgroup_programs::cgroup(executor.sandbox())?;
        let connect = connect4([&services, &backends, &reverse].map(|map| map.as_raw_fd()));
        let getpeername = getpeername4(reverse.as_raw_fd());
        let programs = [(CONNECT4, &connect[..]), (GETPEERNAME4, &getpeername[..])];
        let attached = cgroup_programs::attach(&cgroup, programs)?;
        let lb = Self {
            port: site.port,
            routes: 0,
            services,
            backends,
            reverse,
            _attached: attached,
            executor,
        };
        for (id, address) in (1..).zip(BACKENDS) {
            lb.put_backend(id, address)?;
        }
        Ok(lb)
    }

    fn put_backend(&self, id: u32, address: Ipv4Addr) -> Result<()> {
        let value = [&address.octets()[..], &self.port.to_be_bytes(), &[0; 2]].concat();
        bpf::update(self.backends.as_fd(), &id.to_ne_bytes(), &value)
            .context("failed to write a backend")
    }

    /// Slot 0 of a service has the number of its slots; each other one has a backend.
    fn put_slot(&self, number: u32, slot: u16, value: u32) -> Result<()> {
        let key =
            [&vip(number).octets()[..], &self.port.to_be_bytes(), &slot.to_ne_bytes(), &[0; 4]]
                .concat();
        let value = [value.to_ne_bytes(), [0; 4]].concat();
        bpf::update(self.services.as_fd(), &key, &value).context("failed to write a service")
    }
}

impl Peer for SocketLb {
    fn label(&self) -> &'static str {
        "socket LB stand-in"
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    fn load(&mut self, routes: Routes) -> Result<()> {
        self.routes = routes.count;
        for number in 0..routes.count {
            self.put_slot(number, 0, routes.backends.len() as u32)?;
            for (slot, _) in (1..).zip(routes.backends) {
                self.put_slot(number, slot, u32::from(slot))?;
            }
        }
        Ok(())
    }

    fn spread(&self) -> u32 {
        self.routes
    }

    fn first_target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(FIRST_VIP, self.port)
    }

    fn change(&mut self, number: u32, backend: Ipv4Addr) -> Result<()> {
        let id = BACKENDS.iter().position(|known| *known == backend);
        self.put_slot(number, 1, id.context("not a backend")? as u32 + 1)
    }

    fn map_bytes(&self) -> Result<u64> {
        let maps = [&self.services, &self.backends, &self.reverse];
        maps.into_iter().map(|map| bpf_maps::bytes(map.as_fd())).sum()
    }
}

// Instructions.
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const STORE_HALF: u8 = 0x6b;
const STORE_WORD_IMMEDIATE: u8 = 0x62;
const STORE_HALF_IMMEDIATE: u8 = 0x6a;
const MOD_32: u8 = 0x9c;

// Helpers (`enum bpf_func_id`).
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const RANDOM: i32 = 7;

/// Offsets in `struct bpf_sock_addr`.
const ADDRESS: i16 = 4;
const PORT: i16 = 24;

// Offsets from the frame pointer.
const ID: i16 = -4;
const SERVICE: i16 = -16;
const REVERSE_KEY: i16 = -32;
const REVERSE_VALUE: i16 = -40;

/// A placeholder of [`allow_if_zero`], for the distance to the end.
const END: i16 = i16::MAX;

/// Leaves the program if register 0 is zero.
const fn allow_if_zero() -> Instruction {
    (JUMP_EQUAL, 0, 0, END, 0)
}

/// Looks the key at an offset of the frame up in a map; register 0 gets a pointer to the value.
fn look_up(map: i32, key: i16) -> impl Iterator<Item = Instruction> {
    load_map(map).into_iter().chain(load_address(2, key)).chain([(CALL, 0, 0, 0, MAP_LOOKUP)])
}

/// Ends with `return 1`, which the placeholders jump to.
fn finish(mut program: Vec<Instruction>) -> Vec<Instruction> {
    let end = program.len();
    for (position, instruction) in program.iter_mut().enumerate() {
        if instruction.3 == END {
            instruction.3 = (end - position - 1) as i16;
        }
    }
    program.extend([(MOV_IMMEDIATE, 0, 0, 0, 1), (EXIT, 0, 0, 0, 0)]);
    program
}

fn connect4([services, backends, reverse]: [i32; 3]) -> Vec<Instruction> {
    let mut program = vec![
        (MOV, 6, 1, 0, 0),
        // The key of slot 0.
        (LOAD_WORD, 2, 6, ADDRESS, 0),
        (STORE_WORD, 10, 2, SERVICE, 0),
        (LOAD_WORD, 3, 6, PORT, 0),
        (STORE_HALF, 10, 3, SERVICE + 4, 0),
        (STORE_HALF_IMMEDIATE, 10, 0, SERVICE + 6, 0),
        (STORE_WORD_IMMEDIATE, 10, 0, SERVICE + 8, 0),
    ];
    program.extend(look_up(services, SERVICE));
    program.extend([
        allow_if_zero(),
        (LOAD_WORD, 7, 0, 0, 0),
        (JUMP_EQUAL, 7, 0, END, 0),
        (CALL, 0, 0, 0, RANDOM),
        (MOD_32, 0, 7, 0, 0),
        (ADD_IMMEDIATE, 0, 0, 0, 1),
        (STORE_HALF, 10, 0, SERVICE + 6, 0),
    ]);
    program.extend(look_up(services, SERVICE));
    program.extend([allow_if_zero(), (LOAD_WORD, 2, 0, 0, 0), (STORE_WORD, 10, 2, ID, 0)]);
    program.extend(look_up(backends, ID));
    program.extend([
        allow_if_zero(),
        (LOAD_WORD, 8, 0, 0, 0),
        (LOAD_WORD, 9, 0, 4, 0),
        // The reverse entry.
        (MOV, 1, 6, 0, 0),
        (CALL, 0, 0, 0, SOCKET_COOKIE),
        (STORE_DOUBLE, 10, 0, REVERSE_KEY, 0),
        (STORE_WORD, 10, 8, REVERSE_KEY + 8, 0),
        (STORE_WORD, 10, 9, REVERSE_KEY + 12, 0),
        (LOAD_WORD, 2, 6, ADDRESS, 0),
        (STORE_WORD, 10, 2, REVERSE_VALUE, 0),
        (LOAD_WORD, 3, 6, PORT, 0),
        (STORE_WORD, 10, 3, REVERSE_VALUE + 4, 0),
    ]);
    program.extend(load_map(reverse));
    program.extend(load_address(2, REVERSE_KEY));
    program.extend(load_address(3, REVERSE_VALUE));
    program.extend([
        (MOV_IMMEDIATE, 4, 0, 0, 0),
        (CALL, 0, 0, 0, MAP_UPDATE),
        (STORE_WORD, 6, 8, ADDRESS, 0),
        (STORE_WORD, 6, 9, PORT, 0),
    ]);
    finish(program)
}

fn getpeername4(reverse: i32) -> Vec<Instruction> {
    let mut program = vec![
        (MOV, 6, 1, 0, 0),
        (CALL, 0, 0, 0, SOCKET_COOKIE),
        (STORE_DOUBLE, 10, 0, REVERSE_KEY, 0),
        (LOAD_WORD, 2, 6, ADDRESS, 0),
        (STORE_WORD, 10, 2, REVERSE_KEY + 8, 0),
        (LOAD_WORD, 3, 6, PORT, 0),
        (STORE_WORD, 10, 3, REVERSE_KEY + 12, 0),
    ];
    program.extend(look_up(reverse, REVERSE_KEY));
    program.extend([
        allow_if_zero(),
        (LOAD_WORD, 2, 0, 0, 0),
        (STORE_WORD, 6, 2, ADDRESS, 0),
        (LOAD_WORD, 3, 0, 4, 0),
        (STORE_WORD, 6, 3, PORT, 0),
    ]);
    finish(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_early_exit_jumps_to_the_last_two_instructions() {
        for program in [connect4([3, 4, 5]), getpeername4(5)] {
            let end = program.len() - 2;
            for (position, (operation, _, _, offset, _)) in program.iter().enumerate() {
                if *operation == JUMP_EQUAL {
                    assert_eq!(position + 1 + *offset as usize, end);
                }
            }
        }
    }
}
