//! What the agent publishes to the programs and to everyone who can read the pins.

use crate::{
    addr::{Ip4Be, Ip6Be},
    sampling::Sampling,
    table_type::table_type,
};

/// The only element of the agent's table: whose tables these are, and the agent's heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentState {
    /// `CLOCK_MONOTONIC` in nanoseconds of the agent's last heartbeat; 0 before the first.
    pub heartbeat_ns: u64,
    /// [`crate::abi::ABI`] of the binary that made the tables.
    pub abi: u32,
    /// Process ID of the agent, in its own pid namespace.
    pub pid: u32,
    /// First address of the IPv4 pool.
    pub pool_base: Ip4Be,
    /// Length of the IPv4 pool's prefix.
    pub pool_prefix: u32,
    /// First address of the IPv6 pool, which has the size of the IPv4 one; `::`: none.
    pub pool6_base: Ip6Be,
}
table_type!(AgentState, 40);

/// The only element of the table with the settings that the agent changes while the programs run.
/// It has 8 bytes, so that one store replaces it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Timeout of a first SYN in jiffies while another backend is eligible; 0: the kernel's
    /// default.
    pub syn_timeout: u16,
    /// Retransmissions of such a SYN.
    pub syn_retries: u8,
    /// Which connects are reported by events.
    pub sampling: Sampling,
    /// Milliseconds after which a guest's SYN without an answer moves to another backend when the
    /// guest sends it again; 0: the programs' default.
    pub syn_wait_ms: u16,
    /// `KEEP_` bits: the default is 0.
    pub flags: u8,
    /// Zero.
    pub padding: u8,
}
table_type!(Control, 8);

impl Control {
    /// A backend that accepts connects and resets the connections stays eligible.
    pub const KEEP_RESETTING: u8 = 1;

    /// The longest timeout of a first SYN in milliseconds: a backend that does not answer is
    /// ejected after it (the timer is not exact).
    const MAX_FIRST_TIMEOUT_MS: u32 = 500;

    /// Limits an unanswered connect to `connect_timeout_ms`, on a kernel with `hz` jiffies per
    /// second.
    ///
    /// With `n` retransmissions and a first timeout of `t` the kernel gives up after
    /// `(2ⁿ⁺¹ - 1) t`, with or without linear timeouts (6.5 and later). Its timers are late by up
    /// to an eighth (kernel/time/timer.c), so the target is seven eighths.
    pub const fn with_connect_timeout(self, connect_timeout_ms: u32, hz: u32) -> Self {
        let target_ms = connect_timeout_ms as u64 * 7 / 8;
        let mut retries = 1;
        while retries < 16 && target_ms / ((2 << retries) - 1) > Self::MAX_FIRST_TIMEOUT_MS as u64 {
            retries += 1;
        }
        let first_ms = target_ms / ((2 << retries) - 1);
        let jiffies = target_ms * hz as u64 / 1000 / ((2 << retries) - 1);
        let syn_timeout = if jiffies > u16::MAX as u64 { u16::MAX } else { jiffies as u16 };
        Self {
            syn_timeout: if syn_timeout == 0 { 1 } else { syn_timeout },
            syn_retries: retries as u8,
            syn_wait_ms: if first_ms == 0 { 1 } else { first_ms as u16 },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_connect_ends_in_time() {
        for hz in [100, 250, 300, 1000] {
            for connect_timeout in [100, 500, 1000, 3000, 5000, 10_000, 60_000] {
                let control = Control::default().with_connect_timeout(connect_timeout, hz);
                let first_ms = u32::from(control.syn_timeout) * 1000 / hz;
                let whole_ms =
                    u32::from(control.syn_timeout) * ((2 << control.syn_retries) - 1) * 1000 / hz;
                assert!(first_ms <= 500, "{hz} {connect_timeout}: {control:?}");
                assert!(
                    whole_ms * 9 / 8 <= connect_timeout && whole_ms * 2 >= connect_timeout,
                    "{hz} {connect_timeout}: {control:?}"
                );
            }
        }
        assert_eq!(
            Control::default().with_connect_timeout(3000, 250),
            Control { syn_timeout: 93, syn_retries: 2, syn_wait_ms: 375, ..Control::default() }
        );
    }
}
