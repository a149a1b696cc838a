//! Either agent is killed at some instant of a hand-over: no connect fails, and the other agent
//! serves, or has ended in good order and starts again.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use testbed::{
    agent::Agent,
    clients::{LoadOptions, LoadProcess},
};

use super::hand_over::CONFIG;
use crate::rig::Job;

/// Instants of the ordinary test.
const SOME: u32 = 6;
/// The environment variable with another number of instants.
const COUNT: &str = "REDIRECTOR_HAND_OVER_KILLS";
/// An agent that was asked to hand over has ended by then.
const END_LIMIT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Former,
    Successor,
}

fn launch_successor(job: &Job) -> Agent {
    job.agent.launch_beside(&["--take-over"]).unwrap()
}

/// From the start of a successor to the end of the former agent.
fn time_of_hand_over(job: &mut Job) -> Duration {
    let begun = Instant::now();
    let next = launch_successor(job);
    let mut former = std::mem::replace(&mut job.agent, next);
    assert!(former.wait_ended().unwrap().success(), "{}", former.log_tail());
    let took = begun.elapsed();
    job.wait_serving();
    took
}

/// Kills the victim of a hand-over that has begun so long ago; afterwards an agent serves.
fn interrupt(job: &mut Job, victim: Victim, after: Duration) {
    let mut next = launch_successor(job);
    thread::sleep(after);
    match victim {
        Victim::Former => {
            job.agent.sigkill().unwrap();
            job.agent = next;
        }
        Victim::Successor => {
            next.sigkill().unwrap();
            // With the sockets that it may have stored.
            drop(next);
            let deadline = Instant::now() + END_LIMIT;
            let mut ended = None;
            while ended.is_none() && Instant::now() < deadline {
                ended = job.agent.ended().unwrap();
                thread::sleep(Duration::from_millis(20));
            }
            if let Some(status) = ended {
                assert!(status.success(), "{status}: {}", job.agent.log_tail());
                job.agent.restart().unwrap();
            }
        }
    }
    job.wait_serving();
}

#[test]
fn a_kill_at_any_instant_of_a_hand_over_costs_no_connect() {
    let count = env::var(COUNT).map_or(SOME, |count| count.parse().expect("a number of instants"));
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let window = time_of_hand_over(&mut job);
    for instant in 0..count {
        let after = window * instant / count;
        for victim in [Victim::Former, Victim::Successor] {
            let target = format!("{vip}:8080").parse().unwrap();
            let load = LoadOptions::greeted_by(&["lb1", "lb2"], target, 200, 4.0);
            let load = LoadProcess::start(job.executor.sandbox(), &load).unwrap();
            interrupt(&mut job, victim, after);
            let report = load.report().unwrap();
            let log = job.agent.log_tail();
            assert!(report.flawless(), "{victim:?} after {after:?}: {report:?}\n{log}");
            assert_eq!(job.vip(), vip, "{victim:?} after {after:?}: {log}");
        }
    }
}
