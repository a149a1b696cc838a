//! What the tasks share with the tests: where things are, the test bed, and the demo and the
//! benchmark that stand on it.

pub mod bench;
pub mod demo;
pub mod testbed;
pub mod workspace;
