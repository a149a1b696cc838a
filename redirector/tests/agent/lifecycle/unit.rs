//! The unit for systemd, as `systemd-analyze` judges it.

use std::{fs, path::Path, process::Command};

use crate::rig::binary;

/// The unit with the binary under test, in a directory of its own.
fn unit(directory: &Path) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/redirector.service");
    let text = fs::read_to_string(shipped).unwrap();
    let text = text.replace("/usr/local/bin/redirector", binary().to_str().unwrap());
    let path = directory.join("redirector.service");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn analyze(arguments: &[&str]) {
    let done = Command::new("systemd-analyze").args(arguments).output().unwrap();
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(done.status.success(), "{arguments:?}\n{text}");
}

#[test]
fn the_unit_has_no_mistake_and_little_exposure() {
    let directory = tempfile::tempdir().unwrap();
    let unit = unit(directory.path());
    analyze(&["verify", "--man=no", &unit]);
    // 2.5 of 10.
    analyze(&["security", "--offline=true", "--threshold=25", &unit]);
}
