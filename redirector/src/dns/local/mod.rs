//! What the shim answers by itself.

mod authority;
mod cow_map;
mod zone;

pub use authority::{Kind, Outcome, Question, Terms, answer, refuse};
pub(crate) use authority::{asked, servfail};
pub use zone::{Answer, Answers, Vip};
