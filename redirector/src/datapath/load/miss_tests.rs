//! Tests that a connect to another address makes no map lookup: an interpreter without helpers runs
//! the programs.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use aya_obj::generated::{BPF_PSEUDO_MAP_VALUE, bpf_insn};
use rbpf::EbpfVmRaw;
use redirector_common::names;

use crate::{
    datapath::{
        address::ip6,
        load::object::{constants, parse},
    },
    pool::Pool,
};

const TCP: Call = Call { kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_TCP };
const UDP: Call = Call { kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP };

/// The section of load-time constants.
const CONSTANTS: &str = ".rodata";

/// Bytes of `struct bpf_sock` (uapi/linux/bpf.h).
const SOCKET: usize = 80;

/// The instruction that loads 64 bits, which has the length of two.
const LOAD_LONG: u8 = 0x18;

/// The verdict that allows a call.
const ALLOW: u64 = 1;

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

#[derive(Clone, Copy)]
struct Call {
    kind: i32,
    protocol: i32,
}

impl Call {
    /// `struct bpf_sock_addr` (uapi/linux/bpf.h) of a call for this address, without its last
    /// field, the socket.
    fn to(self, address: [u32; 4], port: u16) -> Vec<u8> {
        let [a, b, c, d] = address;
        let (family, kind, protocol) =
            (libc::AF_INET6 as u32, self.kind as u32, self.protocol as u32);
        // user_family, user_ip4, user_ip6, user_port, family, type, protocol; msg_src_ip4,
        // msg_src_ip6 and padding.
        let words = [family, a, a, b, c, d, u32::from(port.to_be()), family, kind, protocol];
        words.into_iter().chain([0; 6]).flat_map(u32::to_ne_bytes).collect()
    }

    fn v4(self, address: Ipv4Addr, port: u16) -> Vec<u8> {
        self.to([u32::from_ne_bytes(address.octets()), 0, 0, 0], port)
    }

    fn v6(self, address: Ipv6Addr, port: u16) -> Vec<u8> {
        self.to(ip6(address).0, port)
    }
}

fn pool(ipv6: bool) -> Pool {
    Pool {
        ipv4: "198.18.0.0/16".parse().unwrap(),
        ipv6: ipv6.then(|| "fd00::/112".parse().unwrap()),
        guard: false,
    }
}

/// Runs a program with a context and an unbound socket; calling a helper is an error.
fn run(program: &str, pool: &Pool, context: &[u8]) -> io::Result<u64> {
    let mut object = parse().unwrap();
    let constants: Vec<_> =
        constants(pool).into_iter().map(|(name, value)| (name, value.to_ne_bytes())).collect();
    object
        .patch_map_data(
            constants
                .iter()
                .map(|(name, value)| (*name, (&value[..], true)))
                .collect::<HashMap<_, _>>(),
        )
        .unwrap();
    let maps = std::mem::take(&mut object.maps);
    // Numbers instead of descriptors; 0 is the map of the constants.
    let numbered = maps.iter().zip(1..).map(|((name, map), number)| {
        (name.as_str(), if name == CONSTANTS { 0 } else { number }, map)
    });
    let text = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_maps(numbered, &text).unwrap();
    let mut memory =
        [context, &[0; size_of::<u64>()], &[0; SOCKET], maps[CONSTANTS].data()].concat();
    let socket = memory.as_ptr() as u64 + (context.len() + size_of::<u64>()) as u64;
    memory[context.len()..][..size_of::<u64>()].copy_from_slice(&socket.to_ne_bytes());
    let code = code(
        &object.functions[&object.programs[program].function_key()].instructions,
        socket + SOCKET as u64,
    );
    let mut machine = EbpfVmRaw::new(None)?;
    // The interpreter's verifier refuses atomic additions, which a miss never reaches.
    machine.set_verifier(|_| Ok(()))?;
    machine.set_program(&code)?;
    machine.execute_program(&mut memory)
}

/// The instructions as bytes, with the address of the constants filled in.
fn code(instructions: &[bpf_insn], constants: u64) -> Vec<u8> {
    let mut instructions = instructions.to_vec();
    for at in 0..instructions.len() {
        let load = &instructions[at];
        if load.code == LOAD_LONG
            && u32::from(load.src_reg()) == BPF_PSEUDO_MAP_VALUE
            && load.imm == 0
        {
            let address = constants + instructions[at + 1].imm as u64;
            instructions[at].set_src_reg(0);
            (instructions[at].imm, instructions[at + 1].imm) =
                (address as i32, (address >> 32) as i32);
        }
    }
    let bytes = |instruction: bpf_insn| {
        let [low, high] = instruction.off.to_le_bytes();
        let [a, b, c, d] = instruction.imm.to_le_bytes();
        [
            instruction.code,
            instruction.src_reg() << 4 | instruction.dst_reg(),
            low,
            high,
            a,
            b,
            c,
            d,
        ]
    };
    instructions.into_iter().flat_map(bytes).collect()
}

#[test]
fn a_connect_that_is_not_ours_calls_no_helper() {
    for pool in [pool(false), pool(true)] {
        for port in [0, 9, 80, 443, 65535] {
            for call in [TCP, UDP] {
                assert_eq!(run(names::CONNECT4, &pool, &call.v4(ELSEWHERE, port)).unwrap(), ALLOW);
                assert_eq!(run(names::CONNECT6, &pool, &call.v6(ELSEWHERE6, port)).unwrap(), ALLOW);
                assert_eq!(
                    run(names::CONNECT6, &pool, &call.v6(ELSEWHERE.to_ipv6_mapped(), port))
                        .unwrap(),
                    ALLOW
                );
            }
            assert_eq!(run(names::CONNECT4, &pool, &UDP.v4(VIP, port)).unwrap(), ALLOW, "a probe");
            assert_eq!(run(names::CONNECT6, &pool, &UDP.v6(VIP6, port)).unwrap(), ALLOW, "a probe");
            assert_eq!(run(names::SENDMSG4, &pool, &UDP.v4(ELSEWHERE, port)).unwrap(), ALLOW);
            assert_eq!(run(names::SENDMSG6, &pool, &UDP.v6(ELSEWHERE6, port)).unwrap(), ALLOW);
        }
    }
}

#[test]
fn a_connect_to_the_pool_calls_helpers() {
    let both = pool(true);
    let calls = |program, context: Vec<u8>| {
        let error = run(program, &both, &context).unwrap_err().to_string();
        assert!(error.contains("unknown helper"), "{program}: {error}");
    };
    calls(names::CONNECT4, TCP.v4(VIP, 443));
    calls(names::CONNECT6, TCP.v6(VIP6, 443));
    calls(names::CONNECT6, TCP.v6(VIP.to_ipv6_mapped(), 443));
    calls(names::CONNECT4, UDP.v4(ELSEWHERE, 53));
    calls(names::SENDMSG6, UDP.v6(ELSEWHERE6, 53));
    // Without an IPv6 pool that address is not ours.
    assert_eq!(run(names::CONNECT6, &pool(false), &TCP.v6(VIP6, 443)).unwrap(), ALLOW);
}
