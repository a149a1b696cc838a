//! Parts of an event as text, for `events` and `top`.

use super::output::{bytes, short};
use crate::control::{api::Event, count};

/// What was asked for.
pub(super) fn target(event: &Event) -> String {
    match &event.source {
        Some(source) => format!("{source}:{}", event.vip_port),
        None => std::net::SocketAddr::new(event.vip, event.vip_port).to_string(),
    }
}

/// Who asked, and what else there is to say.
pub(super) fn who(event: &Event) -> String {
    let mut words = if event.pid == 0 { "caller unknown".to_owned() } else { caller(event) };
    if let Some(reason) = event.reason {
        words.push_str(&format!("  {}", reason.label()));
    }
    if let Some(traffic) = &event.traffic {
        words.push_str(&format!(
            "  {} received, {} sent",
            bytes(traffic.rx_bytes),
            bytes(traffic.tx_bytes)
        ));
        words.push_str(&format!(", round trip {}", short(traffic.srtt_us.saturating_mul(1000))));
        if traffic.retransmitted > 0 {
            words.push_str(&format!(
                ", {} sent again",
                count(traffic.retransmitted as usize, "segment")
            ));
        }
    }
    if event.sampling_ratio > 1 {
        words.push_str(&format!("  (one of {})", event.sampling_ratio));
    }
    words
}

fn caller(event: &Event) -> String {
    let command = event.command.as_deref().unwrap_or("process ");
    format!("{command}[{}] {}", event.pid, cgroup(event))
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
