//! Changes of the node: routes, guests, files.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::clients::{LoadOptions, LoadProcess, LoadReport};
use testbed::{Network, process};

use crate::field::{self, Field, LIMIT, PORT, STATE, UNLISTED, UPSTREAMS, lock};
use crate::schedule::Step;
use crate::timeline::Timeline;

/// How long the agent may take to restore what was removed, on a busy machine: it documents 2 s.
const RESTORE_LIMIT: Duration = Duration::from_secs(15);
/// How long a new guest may wait until it is served, on a busy machine.
const GUEST_LIMIT: Duration = Duration::from_secs(15);

/// A route is live when the command returns, and gone when the next one returns.
pub(super) fn change_routes(field: &Field, step: &Step) -> Result<()> {
    let name = format!("route{}.internal.company.net", step.number);
    let port = format!("{PORT}");
    field.cli(&["route", "add", &name, "203.0.113.7", "--port", &port])?;
    let vip = field.vip(&name)?;
    connects(field, vip, PORT, &["lb1"])?;
    field.cli(&["route", "set", &name, "--destination", "203.0.113.8"])?;
    connects(field, vip, PORT, &["lb2"])?;
    is_refused(field, vip, UNLISTED)?;
    field.cli(&["route", "remove", &name])?;
    is_refused(field, vip, PORT)
}

fn connects(field: &Field, vip: Ipv4Addr, port: u16, banners: &[&str]) -> Result<()> {
    let report = load(field, vip, port, banners)?;
    ensure!(report.flawless(), "{vip}:{port} does not lead to {banners:?}: {report:?}");
    Ok(())
}

fn is_refused(field: &Field, vip: Ipv4Addr, port: u16) -> Result<()> {
    let report = load(field, vip, port, &[])?;
    let refused = report.failed.get("ECONNREFUSED").or(report.failed.get("EPERM"));
    ensure!(refused == Some(&report.attempted), "{vip}:{port} is not refused: {report:?}");
    Ok(())
}

fn load(field: &Field, vip: Ipv4Addr, port: u16, banners: &[&str]) -> Result<LoadReport> {
    let options = LoadOptions::greeted_by(banners, (vip, port).into(), 10, 0.3);
    LoadProcess::start(field.tenant.sandbox(), &options)?.report()
}

/// A guest appears while the agent runs: its names resolve and its connects arrive; then its
/// interface disappears.
pub(super) fn replace_guest(field: &Field, step: &Step) -> Result<()> {
    let name = format!("guest{}", step.number);
    let guest = field.rig.executor(field::options(&name, false, Network::Pod))?;
    let expected = field.vips.tenants.to_string();
    let ask = format!("dig +short +tries=1 +time=1 @{} {}", UPSTREAMS[0], field::TENANTS_NAME);
    process::until("a new guest's name to resolve", GUEST_LIMIT, || {
        Ok(guest.run(&ask, LIMIT)?.stdout.trim() == expected)
    })?;
    let line = format!("curl -sS --max-time 20 http://{expected}:{PORT}/");
    process::until("a new guest's connect", GUEST_LIMIT, || {
        Ok(guest.run(&line, LIMIT)?.stdout.starts_with("lb"))
    })
}

/// A full disk refuses changes and leaves everything else; afterwards changes are made.
pub(super) fn fill_disk(
    field: &Field,
    timeline: &Mutex<Timeline>,
    step: &Step,
    wait: &dyn Fn(),
) -> Result<()> {
    let fill = format!("dd if=/dev/zero of={STATE}/filler bs=4k 2>/dev/null; df {STATE}");
    field.rig.node.sandbox().run(&fill, LIMIT)?;
    wait();
    field.on_node(&format!("rm -f {STATE}/filler"))?;
    let away = lock(timeline).is_away();
    if !away {
        let name = format!("disk{}.internal.company.net", step.number);
        process::until("changes after a full disk", LIMIT, || {
            let added = ["route", "add", &name, "203.0.113.7"];
            let done = field.rig.node.cli(&field.binary, &added)?;
            Ok(done.status.success() || lock(timeline).is_away())
        })?;
        let removed = ["route", "remove", &name];
        field.rig.node.cli(&field.binary, &removed)?;
    }
    Ok(())
}

/// Removes the pins, and waits until all are there again.
pub(super) fn remove_pins(
    field: &Field,
    remove: &str,
    restore: &str,
    wait: &dyn Fn(),
) -> Result<()> {
    let before = count_pins(field)?;
    field.on_node(remove)?;
    wait();
    field.on_node(restore)?;
    let what = format!("{before} pins after {remove}");
    process::until(&what, RESTORE_LIMIT, || Ok(count_pins(field)? >= before))
}

fn count_pins(field: &Field) -> Result<u64> {
    let list = "find /sys/fs/bpf/redirector -type f 2>/dev/null | wc -l";
    let counted = field.rig.node.sandbox().run(list, LIMIT)?.stdout;
    counted.trim().parse().with_context(|| format!("not a number: {counted}"))
}

/// Waits until a line of shell succeeds on the node.
pub(super) fn until_on_node(field: &Field, line: &str) -> Result<()> {
    let node = field.rig.node.sandbox();
    process::until(line, RESTORE_LIMIT, || Ok(node.run(line, LIMIT)?.status.success()))
}
