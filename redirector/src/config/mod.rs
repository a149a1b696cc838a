//! config
/// spec
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupSpec {
    /// auto
    Auto,
    /// pattern
    Pattern(String),
}
