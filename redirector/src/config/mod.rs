//! The configuration: one TOML file, strict, with every problem reported at once.
//!
//! It is parsed twice. `raw` takes the keys out of the document by name and type; `resolve` turns
//! them into the form below, which has no `Option` but where absence means something.
//! `REDIRECTOR_<SECTION>_<KEY>` in the environment overrides the file, lists separated by
//! commas, and an empty variable counts as none. Other variables that begin with `REDIRECTOR_` are
//! ignored, since Kubernetes sets some for every service that is called `redirector`.

mod accepted;
mod agent_paths;
mod globs;
mod load;
mod pod_selector;
mod preset;
mod raw;
mod resolve;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use self::globs::{is_glob, is_match};
pub use self::{
    accepted::{Accepted, agent_paths},
    agent_paths::AgentPaths,
    load::{ConfigErrors, DEFAULT_PATH, load, parse, path},
    pod_selector::PodSelector,
    preset::Preset,
    settings::{
        Agent, Attach, CgroupSpec, Config, Dns, DnsClients, Health, Intercept, InterfaceSpec,
        Upstream,
    },
};
pub use crate::{
    pool::Pool,
    spanned::{Diagnostic, Location},
};
