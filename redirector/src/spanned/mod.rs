//! Reading what a person wrote (configuration, imported routes, a route over the API) with every
//! problem found at once.
//!
//! serde stops at the first problem, so a person would mend a file one run at a time. Here the text
//! becomes a tree of `Spanned`s that know their lines, a `DocumentReader` takes the keys out of it by name and
//! type, and each problem names its place, its key, the value and the remedy. What the values mean
//! is not decided here, except for the few kinds that everybody shares ([`scalar`]).

mod diagnostic;
pub mod scalar;
mod table;
mod value;

pub use diagnostic::{Diagnostic, Location};
pub(crate) use table::{DocumentReader, TableReader};
pub(crate) use value::{Spanned, Value};
