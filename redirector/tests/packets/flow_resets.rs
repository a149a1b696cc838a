//! Backends that accept a guest's connect and reset the connection before a byte arrives.

use std::{net::SocketAddr, time::Duration};

use redirector::datapath::{EjectionCause, EventKind, InterfaceRole};
use testbed::{
    Executor, ExecutorOptions,
    customer::{AbruptServer, BannerServer, Ending},
    process,
};

use crate::{
    flow_field::{BACKENDS, ROUTE, put},
    rig::{Bed, LIMIT},
};

const VIP: &str = "198.18.0.7";
const PORT: u16 = 8080;

/// A pod with a redirecting interface, a backend that resets, and one that serves.
struct Stage {
    pod: Executor,
    server: AbruptServer,
    _two: BannerServer,
    bed: Bed,
}

impl Stage {
    fn new(ending: Ending, backends: &[&str]) -> Self {
        let mut bed = Bed::new();
        let pod = bed.rig.executor(ExecutorOptions::pod("job")).unwrap();
        bed.attach("pod1", InterfaceRole::Guest);
        put(&mut bed, ROUTE, backends);
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), PORT);
        let server = bed.rig.customer.abrupt_server(at(BACKENDS[0]), ending).unwrap();
        let _two = bed.rig.customer.banner_server(at(BACKENDS[1]), "two").unwrap();
        Self { pod, server, _two, bed }
    }

    /// Runs a script with a connected socket `s` `number` times; the outcomes.
    fn connect(&self, number: usize, script: &str) -> Vec<String> {
        let script = format!(
            "import socket, struct, time\n\
             for n in range({number}):\n\
             \x20try:\n\
             \x20\x20s = socket.create_connection(('{VIP}', {PORT}), 10)\n\
             \x20\x20{script}\n\
             \x20\x20s.close(); print('ok')\n\
             \x20except OSError as e: print(e.errno)"
        );
        let mut command = self.pod.command("/usr/bin/python3");
        command.args(["-c", &script]);
        let output = process::finish(command, LIMIT).unwrap().success().unwrap().stdout;
        output.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits until `number` connections have ended, `resets` of them by a reset.
    #[track_caller]
    fn wait_for_ends(&self, number: u64, resets: u64) {
        process::until("the ends", LIMIT, || {
            let counters = self.bed.datapath.route_counters(ROUTE)?;
            Ok((counters.closed, counters.reset) == (number, resets))
        })
        .unwrap();
    }
}

const REQUEST: &str = "s.send(b'hello'); s.recv(9)";

#[test]
fn a_guest_that_is_reset_moves_to_the_other_backend() {
    let mut stage = Stage::new(Ending::ResetAtRequest, &BACKENDS);
    stage.bed.datapath.set_event_sampling(Some(0)).unwrap();
    let mut reader = stage.bed.datapath.take_event_reader().expect("the first call");
    let began = std::time::Instant::now();
    let outcomes = stage.connect(40, REQUEST);
    let lost = outcomes.iter().filter(|outcome| *outcome == "104").count() as u64;
    // One now, and one more after each of 1, 2, 4 … s.
    let most = 3 + u64::from(began.elapsed().as_secs().max(1).ilog2());
    assert!((1..=most).contains(&lost) && outcomes.len() == 40, "{outcomes:?}");
    assert_eq!(stage.server.accepted(), lost);
    stage.wait_for_ends(40, lost);
    let backends = stage.bed.datapath.backends(ROUTE).unwrap();
    assert_eq!(backends.iter().map(|at| at.counters.reset).collect::<Vec<_>>(), [lost, 0]);
    let unhealthy = stage.bed.datapath.unhealthy_backends().unwrap();
    assert_eq!((unhealthy.len(), unhealthy[0].cause), (1, EjectionCause::Reset));
    assert!(unhealthy[0].client.is_some(), "for its own interface only");
    let mut resets = Vec::new();
    process::until("an event for each", LIMIT, || {
        let read = reader.read(1000).into_iter().filter(|event| event.kind == EventKind::Reset);
        resets.extend(read.map(|event| (event.rx_bytes, event.tx_bytes)));
        Ok(resets.len() as u64 >= lost)
    })
    .unwrap();
    assert_eq!(resets, vec![(0, 5); lost as usize]);
    // A connection that is served clears it.
    stage.server.set(Ending::Serve);
    process::until("a connection is served", LIMIT, || {
        stage.connect(5, REQUEST);
        Ok(stage.bed.datapath.unhealthy_backends()?.is_empty())
    })
    .unwrap();
}

#[test]
fn no_other_end_of_a_guest_speaks_against_a_backend() {
    let late = Duration::from_millis(1300);
    let linger = "s.setsockopt(1, 13, struct.pack('ii', 1, 0))";
    for (name, ending, script) in [
        ("the guest closes at once", Ending::Wait, "pass"),
        ("the guest resets", Ending::Wait, linger),
        ("the guest resets after a request", Ending::Wait, &format!("s.send(b'a'); {linger}")),
        ("the server closes without a byte", Ending::Finish, "s.recv(9)"),
        ("a byte arrived", Ending::ResetAfterByte, "s.recv(1); s.send(b'a'); s.recv(1)"),
        ("the guest has sent nothing for a second", Ending::ResetAfter(late), "s.recv(9)"),
    ] {
        let mut stage = Stage::new(ending, &BACKENDS[..1]);
        assert_eq!(stage.connect(1, script).len(), 1, "{name}");
        stage.wait_for_ends(1, 0);
        assert_eq!(stage.bed.datapath.unhealthy_backends().unwrap(), [], "{name}");
    }
}
