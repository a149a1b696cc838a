//! The packet datapath, at the traffic-control hook of interfaces.
//!
//! | file | is |
//! |---|---|
//! | `hooks` | what passes an interface |
//! | `headers` | reading the headers of a frame |
//! | `skb` | reading and writing octets of a frame by helpers |
//! | `checksum` | checksums of TCP and UDP |
//! | `names` | answering queries for mapped names |
//! | `flows` | TCP of guests and ICMP errors about it: what is not ours leaves there |
//! | `scratch` | the memory that one packet's program works in |
//! | `work` | what the functions below share there |
//! | `segment` | reading a TCP segment |
//! | `guest`, `syn` | segments of a guest |
//! | `choose`, `claim`, `first_syn` | a new flow's backend, its reverse key, its SYN |
//! | `replies`, `refusal` | segments of a backend |
//! | `attempt`, `finish` | the outcome of a SYN; the begin and the end of a connection |
//! | `icmp` | ICMP errors |
//! | `rewrite` | replacing addresses and ports |
//! | `reset`, `resend`, `built` | packets of our own |
//! | `flow_tables`, `flow_events` | the tables of flows; their events |
//! | `maps` | the tables |

mod attempt;
mod built;
mod checksum;
mod choose;
mod claim;
mod finish;
mod first_syn;
mod flow_events;
mod flow_tables;
mod flows;
mod guest;
pub(crate) mod headers;
pub(crate) mod hooks;
mod icmp;
mod maps;
mod names;
mod refusal;
mod replies;
mod resend;
mod reset;
mod rewrite;
mod scratch;
mod segment;
mod skb;
mod syn;
mod work;
