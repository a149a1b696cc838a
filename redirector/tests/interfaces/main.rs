//! The packet programs on interfaces: attached in front of others, swapped, adopted, removed. Each
//! test has a node of its own, and most run on both hooks, TCX and clsact.

mod lifecycle;
mod neighbours;
mod rig;
