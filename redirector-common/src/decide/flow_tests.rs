//! Tests of [`super`].

use super::*;

const HALF_OPEN: FlowState = FlowState(0);
const FAILED: FlowState = FlowState(FlowState::FAILED);
const ESTABLISHED: FlowState = FlowState(FlowState::ESTABLISHED);
const RESET: FlowState = FlowState(FlowState::ESTABLISHED | FlowState::RESET);
const REFUSED: FlowState = FlowState(FlowState::FAILED | FlowState::RESET);
const HALF_CLOSED: FlowState = ESTABLISHED.with(FlowState::GUEST_FIN);
const CLOSED: FlowState = HALF_CLOSED.with(FlowState::BACKEND_FIN);
const MS: u64 = 1_000_000;

#[test]
fn a_syn_with_another_sequence_is_a_new_connection() {
    for state in [HALF_OPEN, FAILED, ESTABLISHED, RESET, CLOSED] {
        assert_eq!(guest_syn(state, false, 0, 0), GuestSyn::New, "{state:?}");
    }
    for state in [RESET, REFUSED, CLOSED] {
        assert_eq!(guest_syn(state, true, 0, 0), GuestSyn::New, "{state:?}");
    }
}

#[test]
fn a_repeated_syn_moves_after_a_refusal_or_silence() {
    assert_eq!(guest_syn(HALF_OPEN, true, 0, 0), GuestSyn::Again);
    assert_eq!(guest_syn(HALF_OPEN, true, 500 * MS - 1, 0), GuestSyn::Again);
    assert_eq!(guest_syn(HALF_OPEN, true, 500 * MS, 0), GuestSyn::Move);
    assert_eq!(guest_syn(HALF_OPEN, true, 100 * MS, 100), GuestSyn::Move);
    assert_eq!(guest_syn(FAILED, true, 0, 0), GuestSyn::Move);
    assert_eq!(guest_syn(ESTABLISHED, true, 5000 * MS, 0), GuestSyn::Again, "a duplicate");
    assert_eq!(guest_syn(HALF_CLOSED, true, 5000 * MS, 0), GuestSyn::Again);
}

#[test]
fn a_guest_ends_a_flow_by_fin_or_reset() {
    assert_eq!(guest_segment(ESTABLISHED, FIN | ACK, 9), FlowState::GUEST_FIN);
    assert_eq!(guest_segment(ESTABLISHED, RST, 9), FlowState::RESET);
    assert_eq!(guest_segment(ESTABLISHED, ACK, 9), 0);
    assert_eq!(guest_segment(HALF_OPEN, RST, 1), FlowState::RESET);
    assert_eq!(guest_segment(HALF_OPEN, RST, 77), 0, "the answer to a stray acknowledgment");
    assert_eq!(guest_segment(HALF_OPEN, ACK, 1), 0);
}

#[test]
fn only_an_answer_to_the_syn_establishes_or_refuses() {
    assert_eq!(reply(HALF_OPEN, SYN | ACK, (1, true)), Reply::Establish);
    assert_eq!(reply(HALF_OPEN, ACK, (1, true)), Reply::Establish, "of a simultaneous open");
    assert_eq!(reply(HALF_OPEN, SYN, (0, true)), Reply::Translate, "the same before");
    assert_eq!(reply(HALF_OPEN, SYN | ACK, (2, true)), Reply::Foreign);
    assert_eq!(reply(HALF_OPEN, SYN | ACK, (0, true)), Reply::Foreign);
    assert_eq!(reply(HALF_OPEN, ACK, (77, true)), Reply::Translate, "a challenge");
    assert_eq!(reply(HALF_OPEN, RST | ACK, (1, true)), Reply::Refuse);
    assert_eq!(reply(HALF_OPEN, RST | ACK, (77, true)), Reply::Foreign);
    assert_eq!(reply(HALF_OPEN, RST, (1, true)), Reply::Translate, "the guest ignores it");
}

#[test]
fn data_in_the_syn_may_be_acknowledged() {
    let state = FlowState(100 << 16);
    assert_eq!(reply(state, SYN | ACK, (1, true)), Reply::Establish);
    assert_eq!(reply(state, SYN | ACK, (101, true)), Reply::Establish);
    assert_eq!(reply(state, SYN | ACK, (102, true)), Reply::Foreign);
}

#[test]
fn a_backend_ends_a_flow_by_fin_or_reset() {
    assert_eq!(reply(ESTABLISHED, FIN | ACK, (50, true)), Reply::Finish);
    assert_eq!(reply(ESTABLISHED, RST, (0, true)), Reply::Reset);
    assert_eq!(reply(ESTABLISHED, ACK, (50, true)), Reply::Translate);
    assert_eq!(reply(ESTABLISHED, SYN | ACK, (1, true)), Reply::Translate, "repeated");
    assert_eq!(reply(ESTABLISHED, SYN | ACK, (50, true)), Reply::Foreign);
    assert_eq!(reply(CLOSED, SYN | ACK, (50, true)), Reply::Stale);
    assert_eq!(reply(RESET, SYN | ACK, (50, true)), Reply::Stale);
}

#[test]
fn spare_ports_are_unprivileged_and_not_ephemeral() {
    assert_eq!((spare_port(0).get(), spare_port(u32::MAX).get()), (1024, 32767));
}

#[test]
fn another_interface_ends_no_established_flow() {
    for flags in [RST, RST | ACK, FIN | ACK] {
        assert_eq!(reply(ESTABLISHED, flags, (9, false)), Reply::Translate, "{flags}");
        assert_eq!(reply(HALF_CLOSED, flags, (9, false)), Reply::Translate, "{flags}");
    }
    // The answer to a SYN comes in first, wherever that is.
    assert_eq!(reply(HALF_OPEN, SYN | ACK, (1, false)), Reply::Establish);
    assert_eq!(reply(HALF_OPEN, RST | ACK, (1, false)), Reply::Refuse);
}
