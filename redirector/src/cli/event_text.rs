//! Parts of an event as text, for `events` and `top`.

use super::output::{bytes, short};
use crate::{
    control::{api::Event, count},
    printable::printable,
};

/// The name and port that the process asked for.
pub(super) fn target(event: &Event) -> String {
    match &event.source {
        Some(source) => format!("{source}:{}", event.vip_port),
        None => std::net::SocketAddr::new(event.vip, event.vip_port).to_string(),
    }
}

/// The process or guest, and details of the outcome.
pub(super) fn process(event: &Event) -> String {
    let mut text = match &event.interface {
        Some(interface) => format!("guest at {interface}"),
        None if event.pid == 0 => "caller unknown".to_owned(),
        None => caller(event),
    };
    if let Some(reason) = event.reason {
        text.push_str(&format!("  {}", reason.label()));
    }
    if let Some(traffic) = &event.traffic {
        text.push_str(&format!(
            "  {} received, {} sent",
            bytes(traffic.rx_bytes),
            bytes(traffic.tx_bytes)
        ));
        text.push_str(&format!(", round trip {}", short(traffic.srtt_us.saturating_mul(1000))));
        if traffic.retransmitted > 0 {
            text.push_str(&format!(
                ", {} retransmitted",
                count(traffic.retransmitted as usize, "segment")
            ));
        }
    }
    if event.sampling_ratio > 1 {
        text.push_str(&format!("  (1 in {})", event.sampling_ratio));
    }
    text
}

fn caller(event: &Event) -> String {
    let command = event.command.as_deref().unwrap_or("process ");
    format!("{}[{}] {}", printable(command), event.pid, printable(&cgroup(event)))
}

/// The cgroup below the hierarchy's mount.
fn cgroup(event: &Event) -> String {
    match &event.cgroup {
        Some(path) => path
            .strip_prefix("/sys/fs/cgroup")
            .map_or_else(|_| path.display().to_string(), |below| format!("/{}", below.display())),
        None => format!("cgroup {}", event.cgroup_id),
    }
}
