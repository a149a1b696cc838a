//! Answers about a destination's addresses.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use redirector::{backend, pool::Pool};

/// A server's replies to the queries of one look-up, each behind its length in two octets: no
/// address is made up, none is one that a name may not lead to, and no error acts on a terminal.
pub fn answer(data: &[u8]) {
    let pool =
        Pool { ipv4: Ipv4Net::new_assert([198, 18, 0, 0].into(), 16), ipv6: None, guard: true };
    let range = pool.ipv4;
    let mut replies = Vec::new();
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let end = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (reply, next) = behind.split_at(end);
        replies.push(reply);
        rest = next;
    }
    match backend::replay("www.example.com", pool, replies.iter().copied()) {
        Ok(addresses) => {
            for address in addresses {
                let IpAddr::V4(v4) = address else { panic!("{address} of a query for IPv4") };
                let sent =
                    replies.iter().any(|reply| reply.windows(4).any(|four| four == v4.octets()));
                assert!(sent, "{v4} is in no reply");
                let forbidden = v4.is_loopback() || v4.is_link_local() || v4.is_multicast();
                assert!(!forbidden && !v4.is_unspecified() && !range.contains(&v4), "{v4}");
            }
        }
        Err(error) => assert!(!error.contains(char::is_control), "{error:?}"),
    }
}
