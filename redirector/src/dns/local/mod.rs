//! Answers for the names that the shim serves itself.

mod authority;
mod cow_map;
mod decision;
mod reply_builder;
mod touched_zones;
mod zone;

pub use authority::{answer, refuse};
pub(crate) use authority::{describe_question, servfail};
pub use decision::{AnswerPolicy, Decision, ForwardInfo, ReplyKind};
pub(crate) use zone::WireName;
pub use zone::{Answer, Vip, Zone};
