//! The last known addresses of a destination, after a restart of the agent.

use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use redirector::backend::{Freshness, Resolved, Target};

use crate::{
    follower_rig::{FollowerRig, addresses, by_name, only, source, start, state_file},
    running_shim::TEST_TIMEOUT,
    scripted_zone::{NAME, ScriptedZone, ZoneScript, one},
};

#[tokio::test]
async fn a_restart_without_dns_uses_the_last_known_addresses() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let upstream = zone.serve().await;
    let (FollowerRig { follower, directory }, good) =
        FollowerRig::follow(&[upstream.address]).await;
    follower.shutdown().await;

    zone.set(ZoneScript::NoReply);
    let again = start(&[upstream.address], &state_file(directory.path()));
    again.set_targets(only(by_name(NAME)));
    let first = Resolved::clone(&again.current()[&source()]);
    assert_eq!((&first.addresses, first.resolved_at), (&good.addresses, good.resolved_at));
    assert!(matches!(first.freshness, Freshness::Stale { .. }));
    again.set_targets(only(Target { resolver: Some(upstream.address), ..by_name(NAME) }));
    assert!(
        again.current()[&source()].addresses.is_empty(),
        "another resolver may know other addresses"
    );
    again.shutdown().await;
}

#[tokio::test]
async fn addresses_are_saved_as_soon_as_they_are_known() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let upstream = zone.serve().await;
    let (rig, _) = FollowerRig::follow(&[upstream.address]).await;
    let file = state_file(rig.directory.path());
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("203.0.113.7")) {
        assert!(Instant::now() < deadline, "never saved");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left: Vec<_> = std::fs::read_dir(rig.directory.path().join("state"))
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["addresses.json"], "no temporary file is left");
}

#[tokio::test]
async fn addresses_that_nxdomain_removed_are_not_saved() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let (FollowerRig { follower, directory }, _) = FollowerRig::follow(&[upstream.address]).await;
    follower.shutdown().await;
    zone.set(ZoneScript::Code(ResponseCode::NXDomain));
    let rig = FollowerRig {
        follower: start(&[upstream.address], &state_file(directory.path())),
        directory,
    };
    rig.follower.set_targets(only(by_name(NAME)));
    assert_eq!(rig.now().addresses.len(), 1);
    rig.until("the empty answer", |resolved| resolved.addresses.is_empty()).await;
    rig.follower.shutdown().await;
    let text = std::fs::read_to_string(state_file(rig.directory.path())).expect("saved");
    assert!(!text.contains("203.0.113.7"), "{text}");
}

#[tokio::test]
async fn a_damaged_state_file_does_not_prevent_a_start() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let upstream = zone.serve().await;
    let directory = tempfile::tempdir().expect("a directory");
    for damaged in ["", "{", "[]", r#"{"version":99,"destinations":[]}"#] {
        std::fs::create_dir_all(directory.path().join("state")).expect("made");
        std::fs::write(state_file(directory.path()), damaged).expect("written");
        let follower = start(&[upstream.address], &state_file(directory.path()));
        follower.set_targets(only(by_name(NAME)));
        assert_eq!(
            follower.wait_for_answer(&source(), TEST_TIMEOUT).await.addresses,
            addresses(&["203.0.113.7"])
        );
        follower.shutdown().await;
    }
    assert_eq!(
        std::fs::read_to_string(directory.path().join("state/addresses.json.damaged-2"))
            .expect("a copy"),
        "{"
    );
}
