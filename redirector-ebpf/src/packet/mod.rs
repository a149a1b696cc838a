//! The packet datapath, at the traffic-control hook of interfaces.
//!
//! | file | is |
//! |---|---|
//! | `hooks` | what passes an interface |
//! | `headers` | reading the headers of a frame |
//! | `skb` | reading and writing octets of a frame by helpers |
//! | `checksum` | checksums of TCP and UDP |
//! | `names` | answering queries for mapped names |
//! | `flows` | redirecting TCP of guests |
//! | `maps` | the tables |

mod checksum;
mod flows;
pub(crate) mod headers;
pub(crate) mod hooks;
mod maps;
mod names;
mod skb;
