//! What the outside may see without asking for more than a GET: the admin listener.

mod admin;

pub use admin::{Admin, Health};
