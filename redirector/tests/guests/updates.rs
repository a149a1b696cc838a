//! The agent crashes again and again, or is replaced by a new one, under steady look-ups and
//! connects.

use std::thread;
use std::time::{Duration, Instant};

use crate::field::{Field, resolv};
use crate::loads::{Loaded, meanwhile};

/// How long the agent lives each time.
const LIFE: Duration = Duration::from_secs(1);
/// How often it is killed.
const CRASHES: u32 = 15;
/// How often a new agent takes over.
const UPDATES: u32 = 10;

fn under_load(field: &mut Field, act: impl FnOnce(&mut testbed::Agent)) {
    let guest = field.guest_pod("guest");
    let executor = field.executor("job");
    let process = field.host_executor("host", resolv());
    let guests = [
        Loaded { name: "guest", guest: &guest, rate: 50 },
        Loaded { name: "executor", guest: &executor, rate: 50 },
        Loaded { name: "host process", guest: &process, rate: 50 },
    ];
    let mut agent = field.take_agent();
    meanwhile(field, &guests, || act(&mut agent));
    field.assert_contained();
}

#[test]
fn a_crash_loop_costs_no_lookup_and_no_connect() {
    under_load(&mut Field::new(), |agent| {
        for _ in 0..CRASHES {
            let begun = Instant::now();
            agent.relaunch().unwrap();
            thread::sleep(LIFE.saturating_sub(begun.elapsed()));
            agent.sigkill().unwrap();
        }
    });
}

#[test]
fn a_rolling_update_costs_no_lookup_and_no_connect() {
    under_load(&mut Field::new(), |agent| {
        for _ in 0..UPDATES {
            let ended = agent.sigterm().unwrap();
            assert_eq!(ended.code(), Some(0), "{}", agent.log_tail());
            agent.restart().unwrap();
        }
    });
}
