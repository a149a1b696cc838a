//! The packet datapath: its tables, and the arithmetic on packets that the programs share with tests
//! and with the agent.
//!
//! | file | is |
//! |---|---|
//! | `name`, `flow`, `interface`, `stats` | the types of the tables |
//! | `names` | names as the agent publishes them |
//! | `octets`, `labels`, `reverse` | parsing names in words of eight octets |
//! | `record`, `header` | the words of a reply |
//! | `checksum` | sums of the Internet checksum |

pub mod checksum;
pub mod flow;
pub mod header;
pub mod interface;
pub mod labels;
pub mod name;
pub mod names;
pub mod octets;
pub mod record;
pub mod reverse;
pub mod stats;
