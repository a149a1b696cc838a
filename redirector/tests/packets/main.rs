//! The packet programs: single packets by `BPF_PROG_TEST_RUN`, and real clients in namespaces. Each
//! test has a node of its own.

mod clients;
mod flow_field;
mod flow_frames;
mod flow_intruders;
mod flow_limits;
mod flow_resets;
mod flow_sockets;
mod frames;
mod name_publishing;
mod oracle;
mod queries;
mod query_cost;
mod random_frames;
mod rewrite_rules;
mod rig;
mod segments;
