//! Parts of an event as text, for `events` and `top`.

use super::{
    output::{bytes, short},
    workload::workload,
};
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
    let (who, place) = (caller(event), place(event));
    let separator = if place.is_empty() { "" } else { " " };
    format!("{who}{separator}{place}{}", details(event))
}

/// The same in at most `width` columns: the beginning of the place goes first, then the place, then
/// the end.
pub(super) fn process_within(event: &Event, width: usize) -> String {
    let whole = process(event);
    if whole.chars().count() <= width {
        return whole;
    }
    let (who, place, details) = (caller(event), place(event), details(event));
    let others = who.chars().count() + 1 + details.chars().count();
    let room = width.saturating_sub(others);
    if room >= MIN_PLACE && !place.is_empty() {
        return format!("{who} {}{details}", end_within(&place, room));
    }
    within(&format!("{who}{details}"), width)
}

/// Less of a cgroup's path or a pod's name says nothing.
const MIN_PLACE: usize = 8;

/// The beginning of a text, in at most `width` columns.
pub(super) fn within(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The end of a text, in at most `width` columns.
fn end_within(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let skipped = length - width.saturating_sub(1);
    ['…'].into_iter().chain(text.chars().skip(skipped)).collect()
}

/// Details of the outcome.
fn details(event: &Event) -> String {
    let mut text = String::new();
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
    match &event.interface {
        Some(interface) => format!("guest at {interface}"),
        None if event.pid == 0 => "caller unknown".to_owned(),
        None => {
            let command = event.command.as_deref().unwrap_or("process ");
            format!("{}[{}]", printable(command), event.pid)
        }
    }
}

/// The pod or container, else the cgroup below the hierarchy's mount.
fn place(event: &Event) -> String {
    if event.interface.is_some() || event.pid == 0 {
        return String::new();
    }
    if let Some(pod) = &event.pod {
        return format!("pod {}", printable(&pod.to_string()));
    }
    if let Some(workload) = event.cgroup.as_deref().and_then(workload) {
        return workload;
    }
    let Some(path) = &event.cgroup else { return format!("cgroup {}", event.cgroup_id) };
    let path = path
        .strip_prefix("/sys/fs/cgroup")
        .map_or_else(|_| path.display().to_string(), |below| format!("/{}", below.display()));
    printable(&path).to_string()
}
