//! Guests and a customer in network namespaces of the machine.
//!
//! | file | is |
//! |---|---|
//! | `netlink` | links, addresses and routes |
//! | `places` | the namespaces and what connects them |
//! | `actor` | a process in a place, which acts as it is asked |
//! | `requests` | what an actor is asked, and its replies |
//! | `customer` | the servers and the resolver |
//! | `query` | DNS messages |

pub(crate) mod actor;
pub(crate) mod customer;
pub(crate) mod netlink;
pub(crate) mod places;
pub(crate) mod query;
pub(crate) mod requests;
