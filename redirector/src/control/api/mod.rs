//! The JSON shapes of the control API, which are those of `-o json` as well. Documented in
//! `docs/reference/api.md`.
//!
//! A field is never removed or given another meaning within one [`VERSION`]; new fields may appear,
//! so readers ignore what they don't know.

mod change;
mod event;
mod route;
mod status;
mod version;

pub use change::{
    Change, ChangeKind, ChangeList, ChangeShow, Changed, Differing, Export, ImportRequest,
    Imported, Reloaded, RollbackRequest, RolledBack,
};
pub use event::{
    Event, EventLine, EventQuery, EventReason, EventResult, EventsInfo, Lost, LostBy, Traffic,
};
pub use route::{
    BackendCounters, BackendState, BackendView, Counters, Resolution, ResolutionState, RouteList,
    RouteShow, RouteView, VipView,
};
pub use status::{
    AgentInfo, AttachmentInfo, ConfigInfo, DatapathInfo, DnsInfo, ForeignProgram,
    InterceptedResolver, InterceptionInfo, OTHER_VERSION, PendingAttachment, Problem, State,
    Status, UpgradeInfo, UpstreamInfo,
};
pub use version::VERSION;
