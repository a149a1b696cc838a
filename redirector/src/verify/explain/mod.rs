//! What a connect would do, and why. Pure.

mod backends;
mod explainer;
mod facts;
mod hook;
mod resolver;
mod route;
mod target;
mod trace;

pub(crate) use self::{facts::ExplainFacts, target::ExplainTarget, trace::explain};
