//! The packet datapath: its tables, and the arithmetic on packets that the programs share with the
//! agent and with tests.
//!
//! | file | is |
//! |---|---|
//! | `name`, `flow`, `interface`, `stats` | the types of the tables |
//! | `names` | names as the agent publishes them |
//! | `name_filter` | which names are looked for at all |
//! | `octets`, `labels`, `reverse` | parsing names in words of eight octets |
//! | `search`, `found` | searching names, wildcards and cgroups |
//! | `answer` | the decision about a reply |
//! | `question`, `record`, `header`, `front` | the words of a query and of its reply |
//! | `checksum` | sums of the Internet checksum |

pub mod answer;
pub mod checksum;
pub mod flow;
pub mod found;
pub mod front;
pub mod header;
pub mod interface;
pub mod labels;
pub mod name;
pub mod name_filter;
pub mod names;
pub mod octets;
pub mod question;
pub mod record;
pub mod reverse;
pub mod search;
pub mod stats;
