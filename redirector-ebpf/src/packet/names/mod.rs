//! Answers queries for mapped names in place. Everything else passes untouched: other names, and
//! whatever is no plain query.
//!
//! | file | does |
//! |---|---|
//! | `query` | answers a query, or leaves it alone |
//! | `read` | reads its frame |
//! | `origin` | where a query comes from |
//! | `find` | finds a name, its wildcard, or the VIP of a reverse name |
//! | `starts` | finds where its labels start |
//! | `host` | checks the cgroup of a socket of the host's own network |
//! | `question` | reads the question's type and the EDNS record |
//! | `reply` | rewrites the query into its reply |
//! | `records` | writes the reply's records |
//! | `front` | writes what is before the name |
//! | `tail` | sums up what is behind the question |
//! | `scratch` | the memory for it |
//!
//! Global functions: the verifier checks each once. They pass words and leave octets in the
//! scratch memory.

mod find;
mod front;
mod host;
pub(super) mod origin;
pub(super) mod query;
mod question;
mod read;
mod records;
mod reply;
pub(super) mod scratch;
mod settings;
mod starts;
mod tail;
