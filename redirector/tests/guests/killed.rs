//! The agent is killed and nobody starts it again.

use std::env;
use std::thread;
use std::time::Duration;

use testbed::guests::{MicroVm, MicroVmHost};

use crate::field::{Field, bare_vm, resolv};
use crate::loads::{Loaded, for_seconds};

/// The variable with the number of seconds; ten minutes are 600.
const VARIABLE: &str = "REDIRECTOR_TEST_AGENTLESS_SECONDS";
/// Without the variable.
const SECONDS: f64 = 18.0;
/// After this the agent is killed.
const BEFORE: Duration = Duration::from_secs(2);

/// Every mapped name resolves and every connect arrives, of guests, executors and host processes;
/// every other name has its resolver's answer, octet for octet.
#[test]
fn names_and_connects_outlive_a_killed_agent() {
    let seconds = env::var(VARIABLE).map_or(SECONDS, |text| text.parse().unwrap());
    let mut field = Field::new();
    let guest = field.guest_pod("guest");
    let executor = field.executor("job");
    let process = field.host_executor("host", resolv());
    let host = MicroVmHost::new(&field.rig.node).unwrap();
    let vm = field.with_programs(MicroVm::start(&host, &bare_vm()).unwrap());
    let guests = [
        Loaded { name: "guest", guest: &guest, rate: 50 },
        Loaded { name: "executor", guest: &executor, rate: 50 },
        Loaded { name: "host process", guest: &process, rate: 50 },
        Loaded { name: "micro-VM", guest: &vm, rate: 5 },
    ];
    let mut agent = field.take_agent();
    for_seconds(&field, &guests, seconds, || {
        thread::sleep(BEFORE);
        agent.sigkill().unwrap();
    });
    field.assert_contained();
}
