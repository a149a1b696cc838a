//! The JSON shapes of the control API, which are those of `-o json` as well. Documented in
//! `docs/reference/api.md`.
//!
//! A field is never removed or given another meaning within one [`VERSION`]; new fields may appear,
//! so readers ignore fields that they do not know.

mod change;
mod datapath;
mod dns;
mod event;
mod packet;
mod problem;
mod progress;
mod route;
mod status;
mod version;

pub use change::{
    Change, ChangeKind, ChangeList, ChangeShow, Changed, Differing, Export, ImportRequest,
    Imported, Reloaded, RollbackRequest, RolledBack,
};
pub use datapath::{
    AttachmentInfo, DatapathInfo, ForeignProgram, PendingAttachment, PodsInfo, SourcePortsInfo,
    UncoveredCgroup, UpgradeInfo,
};
pub use dns::{DnsInfo, InterceptWay, InterceptedResolver, InterceptionInfo, UpstreamInfo};
pub use event::{
    Event, EventLine, EventQuery, EventReason, EventResult, EventsInfo, Lost, LostBy, PodName,
    Traffic,
};
pub(crate) use packet::interface_label;
pub use packet::{FlowsInfo, InterfaceInfo, PacketInfo, ServedBy};
pub use problem::{Problem, ProblemCode};
pub use progress::Progress;
pub use route::{
    AnswerCounts, BackendState, BackendView, EjectionView, RejectedAddress, Resolution,
    ResolutionState, RouteList, RouteShow, RouteView, VipView,
};
pub use status::{AgentInfo, ConfigInfo, StandbyInfo, State, Status};
pub use version::VERSION;

pub use crate::datapath::{BackendCounters, RouteCounters as Counters};
