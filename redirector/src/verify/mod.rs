//! `redirector verify` and `redirector explain`: does a connect work, and why not.
//!
//! | module | holds |
//! |---|---|
//! | `end_to_end` | the whole of `verify` |
//! | `probe` | the child that acts from the executor's location and reports what it saw |
//! | `probe_cgroup`, `process` | that location: a cgroup; a process's cgroup, network, resolver |
//! | `follow` | where an answer sends the client next |
//! | `hosts` | a process's hosts file |
//! | `guest_place` | the place of a guest: a network namespace behind an interface |
//! | `diagnose` | from what was seen to the cause and the next step; pure |
//! | `explain` | what a connect would do, from what is known; pure |
//! | `candidates` | the names that the job's resolver asks for, by its search list |
//! | `causes`, `cause_code` | causes that both find, and the code of each |
//! | `report` | the shapes of both |

mod candidates;
mod cause_code;
mod causes;
#[cfg(test)]
mod causes_tests;
mod diagnose;
mod end_to_end;
mod explain;
mod follow;
mod guest_place;
mod hosts;
mod job;
mod lookups;
mod probe;
mod probe_cgroup;
mod probe_process;
mod process;
mod report;
mod target;

pub use self::{
    cause_code::CauseCode,
    guest_place::GuestPlace,
    hosts::Hosts,
    probe::{CertificateInfo, Referrer, Until, read_banner, read_references},
    process::Process,
    report::{
        Candidate, Explained, Finding, Followed, PathStage, SourceAddresses, Step, StepOutcome,
        Vantage, Verified,
    },
    target::{Scheme, Target, route_for},
};
pub(crate) use self::{
    end_to_end::verify,
    explain::{ExplainFacts, ExplainTarget, explain},
    job::VerifyOptions,
    probe::child,
};
