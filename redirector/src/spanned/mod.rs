//! Reading what a person wrote (configuration, imported routes, a route over the API) with every
//! problem found at once.
//!
//! serde stops at the first problem, so an operator would correct a file one run at a time. Here
//! the text becomes a tree of `Spanned` values, a `DocumentReader` takes the keys out of it by name
//! and type, and each diagnostic has the location, the key, the value and the remedy. The meaning
//! of the values is decided elsewhere, except for the few kinds that are shared ([`scalar`]).

mod diagnostic;
pub mod scalar;
mod table;
mod value;

pub use diagnostic::{Diagnostic, Location};
pub(crate) use table::{DocumentReader, TableReader};
pub(crate) use value::{Spanned, Value};
