//! Answers queries for mapped names in place. Everything else passes untouched: other names, and
//! whatever is no plain query.
//!
//! | file | does |
//! |---|---|
//! | `query` | answers a query, or leaves it alone |
//! | `origin` | where a query comes from |
//! | `find` | finds a name, its wildcard, or the VIP of a reverse name |
//! | `host` | checks the cgroup of a socket of the host's own network |
//! | `question` | reads the question's type and the EDNS record |
//! | `reply` | rewrites the query into its reply |
//! | `records` | writes the reply's record |
//! | `tail` | sums up what is behind the question |
//! | `frame` | turns the packet back |
//! | `scratch` | the memory for it |
//!
//! Global functions: the verifier checks each once. They pass words and leave octets in the
//! scratch memory.

mod find;
mod frame;
mod host;
pub(super) mod origin;
pub(super) mod query;
mod question;
mod records;
mod reply;
pub(super) mod scratch;
mod settings;
mod tail;
