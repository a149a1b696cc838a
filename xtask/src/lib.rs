//! What the tasks share with the tests: where things are, and the test bed.

pub mod workspace;
