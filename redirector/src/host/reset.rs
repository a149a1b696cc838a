//! Refuses TCP to the pool with a reset, in front of the guard's route. The kernel limits the rate
//! of the ICMP errors with which it answers pods for an unreachable route, but not that of resets.
//!
//! An nftables rule at the very start of the path of received packets: nothing there depends on a
//! firewall's rules or on addresses. (A local route of the pool also makes the kernel answer with
//! resets; but then rules for local destinations, those of published ports, apply to the pool.)

use std::io;

use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR},
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};

use crate::host::nft_message::{Attributes, Batch, Message};

/// The messages of nf_tables (linux/netfilter/nf_tables.h).
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;

/// The name of our chain; the table is named after the range.
const CHAIN: &str = "guard";

/// Before `raw`, and after the reassembly of fragments.
const PRIORITY: i32 = -310;

/// `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFT_META_L4PROTO`.
const L4PROTO: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFT_REJECT_TCP_RST`.
const TCP_RESET: u32 = 1;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// Adds the rule for a range. False if it is there already.
pub(crate) fn put(net: IpNet) -> io::Result<bool> {
    let socket = open()?;
    let mut rule = Message::new(GET_RULE, family(net), NLM_F_REQUEST | NLM_F_DUMP);
    rule.attributes.text(1, &table(net)).text(2, CHAIN);
    let listed = exchange(&socket, &rule.into_bytes(1))?;
    if listed > 0 {
        return Ok(false);
    }
    exchange(&socket, &replacement(net).committed())?;
    Ok(true)
}

/// Whether this kernel would accept the rule. Nothing is changed.
pub(crate) fn probe(net: IpNet) -> io::Result<()> {
    // The kernel checks a batch without an end, and drops it.
    exchange(&open()?, &replacement(net).unfinished()).map(drop)
}

/// Removes the rule for a range. Returns whether there was one.
pub(crate) fn remove(net: IpNet) -> io::Result<bool> {
    let mut batch = Batch::new();
    batch.push(of_table(DELETE_TABLE, net, NLM_F_REQUEST | NLM_F_ACK));
    let removed = open().and_then(|socket| exchange(&socket, &batch.committed()));
    match removed {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) || is_unsupported(&error) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error means that this kernel lacks nf_tables or a part of it.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    const MISSING: [i32; 4] =
        [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ENOENT];
    error.raw_os_error().is_some_and(|errno| MISSING.contains(&errno))
}

/// The name of the table of a range: two agents of one host have two.
fn table(net: IpNet) -> String {
    format!("redirector_{net}").replace([':', '/'], "_")
}

fn family(net: IpNet) -> u8 {
    match net {
        IpNet::V4(_) => libc::NFPROTO_IPV4 as u8,
        IpNet::V6(_) => libc::NFPROTO_IPV6 as u8,
    }
}

fn of_table(kind: u8, net: IpNet, flags: u16) -> Message {
    let mut message = Message::new(kind, family(net), flags);
    message.attributes.text(1, &table(net));
    message
}

/// Replaces the table, in one step.
fn replacement(net: IpNet) -> Batch {
    let create = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
    let mut chain = Message::new(NEW_CHAIN, family(net), create);
    let mut hook = Attributes::default();
    hook.number(1, libc::NF_INET_PRE_ROUTING as u32).number(2, PRIORITY as u32);
    chain.attributes.text(1, &table(net)).text(3, CHAIN).nested(4, hook);
    chain.attributes.number(5, ACCEPT).text(7, "filter");
    let mut rule = Message::new(NEW_RULE, family(net), create);
    rule.attributes.text(1, &table(net)).text(2, CHAIN).nested(4, expressions(net));
    let mut batch = Batch::new();
    batch.push(of_table(NEW_TABLE, net, create));
    batch.push(of_table(DELETE_TABLE, net, NLM_F_REQUEST | NLM_F_ACK));
    batch.push(of_table(NEW_TABLE, net, create));
    batch.push(chain);
    batch.push(rule);
    batch
}

/// `ip daddr NET meta l4proto tcp reject with tcp reset`.
fn expressions(net: IpNet) -> Attributes {
    let (offset, network, mask) = match net {
        IpNet::V4(net) => (16, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        IpNet::V6(net) => (24, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    };
    let length = network.len() as u32;
    let mut destination = Attributes::default();
    destination.number(1, REGISTER).number(2, NETWORK_HEADER).number(3, offset).number(4, length);
    let mut masked = Attributes::default();
    masked.number(1, REGISTER).number(2, REGISTER).number(3, length);
    masked.nested(4, value(&mask)).nested(5, value(&vec![0; mask.len()]));
    let mut protocol = Attributes::default();
    protocol.number(1, REGISTER).number(2, L4PROTO);
    let mut reset = Attributes::default();
    reset.number(1, TCP_RESET).bytes(2, &[0]);
    let mut all = Attributes::default();
    all.expression("payload", destination).expression("bitwise", masked);
    all.expression("cmp", equals(&network)).expression("meta", protocol);
    all.expression("cmp", equals(&[libc::IPPROTO_TCP as u8])).expression("reject", reset);
    all
}

fn equals(data: &[u8]) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.number(1, REGISTER).number(2, 0).nested(3, value(data));
    attributes
}

fn value(data: &[u8]) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.bytes(1, data);
    attributes
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request, and returns how many objects the kernel listed. It has replied when the call
/// that sends returns.
fn exchange(socket: &Socket, request: &[u8]) -> io::Result<usize> {
    socket.send(request, 0)?;
    let (mut listed, mut buffer) = (0, Vec::with_capacity(64 * 1024));
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(listed),
            Err(error) => return Err(error),
        }
        for (kind, payload) in crate::host::nft_message::split(&buffer) {
            match (kind, payload.first_chunk()) {
                (NLMSG_ERROR | NLMSG_DONE, Some(code)) => {
                    let code = i32::from_ne_bytes(*code);
                    if code < 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                }
                (NLMSG_ERROR | NLMSG_DONE, None) => {}
                _ => listed += 1,
            }
        }
    }
}
