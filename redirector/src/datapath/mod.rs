//! The programs, maps, links and pins in the kernel. Nothing outside this module uses aya.
//!
//! | file | is |
//! |---|---|
//! | `loaded` | the loaded datapath: the interface for the agent |
//! | `settings` | its settings |
//! | `status` | what it reports: counters, backends, programs, attachments |
//! | `events` | reading connect events from the ring buffer |
//! | `load/object` | the embedded programs: loading them onto new or pinned maps |
//! | `load/decision_log` | reading what the programs log |
//! | `load/copying_programs` | choosing the packet programs that need no direct access |
//! | `load/strip_helper` | removing calls of a helper that this kernel lacks |
//! | `attach/hierarchy` | the cgroup2 hierarchy: where it is mounted, its cgroups and levels |
//! | `attach/cgroups` | finding the cgroups to attach to |
//! | `attach/held` | descriptors that keep links and maps in force without their pins |
//! | `attach/intact` | directories of pins that need no healing |
//! | `attach/presets` | what the words of `attach.cgroups` stand for |
//! | `attach/pods` | the cgroups of single pods |
//! | `attach/globs` | directories: what a glob matches, and what is in one |
//! | `attach/links` | attaching, swapping programs under live links, detaching |
//! | `attach/interfaces/attacher` | attaching the packet programs to interfaces, first of all |
//! | `attach/interfaces/hook` | the steps for one program on one interface |
//! | `attach/interfaces/tcx` | links to the TCX hook |
//! | `attach/interfaces/clsact` | filters of the clsact qdisc, before 6.6 |
//! | `attach/interfaces/elements` | the table of guests' interfaces |
//! | `attach/interfaces/neighbours` | foreign programs on an interface |
//! | `attach/interfaces/pinned` | what is attached to interfaces, without an agent |
//! | `attach/interfaces/removal` | detaching from interfaces by what is pinned |
//! | `attach/interfaces/target` | what is attached to an interface, and what was found there |
//! | `maps/arrays` | reading and writing elements of arrays, one by one or in batches |
//! | `maps/route_layout` | one route and the slots of its block |
//! | `maps/route_maps` | the three maps that define a route |
//! | `maps/allocator` | the free slots and backend IDs |
//! | `maps/writer` | writing plans: first the block, then the entry that points to it |
//! | `maps/counters` | the counters of routes and backends |
//! | `maps/agent_maps` | the maps that the agent writes: claiming them, reading them back |
//! | `maps/flow_counts` | how many flows each guest's interface has |
//! | `maps/name_maps` | the tables of names that are answered by packet |
//! | `maps/published_names` | those names, as the agent knows them |
//! | `maps/name_cgroups` | the cgroups that get these answers on the host's own network |
//! | `maps/resolvers` | DNS interception at sockets: the slot of each listed resolver |
//! | `pins/layout` | the paths of the pins |
//! | `pins/version` | the version of the maps, and its compatibility with older ones |
//! | `pins/compat` | comparing pinned maps with those that this binary would create |
//! | `pins/upgrade` | upgrading an older version's pins |
//! | `pins/inspect` | reading the state from the pins alone, and removing them |
//! | `checks/preflight` | what `redirector check` reports of this host |
//! | `checks/kernel` | the kernel's version and what it implies |
//! | `checks/features` | what old kernels lack |
//! | `checks/privileges` | capabilities, seccomp, memory lock limit |
//! | `checks/foreign` | foreign programs on our hooks |
//! | `checks/debug_log` | whether the programs that log can run here |
//! | `address` | addresses as the maps store them |
//! | `sys` | the bpf(2) commands that aya does not have |

mod address;
mod attach;
mod checks;
mod clients;
mod error;
mod events;
mod load;
mod loaded;
mod maps;
mod pins;
mod settings;
mod status;
mod sys;

/// How long clients that remember VIPs of a former pool are served.
pub const FORMER_POOL_TIME: std::time::Duration = std::time::Duration::from_hours(1);

pub use attach::{
    cgroups::{
        Matches, PodFilter, cgroups, cgroups_beside, pod_parents, preset_cgroups, watched_dirs,
    },
    globs::subfolders,
    hierarchy::{Cgroup, cgroup_paths, cgroup2_mount, is_confined, name_cgroups},
    interfaces::target::{
        InterfaceAttachment, InterfaceFailure, InterfaceFinding, InterfaceRole, InterfaceTarget,
        TcHook,
    },
    links::{AttachFailure, AttachOutcome},
    pods::pod_uid,
};
pub use checks::{
    check::{Check, Outcome},
    features::{FEATURES, Feature},
    foreign::{ForeignProgram, foreign_filters, foreign_programs, program_name},
    kernel::has_current_comm,
    preflight::preflight,
};
pub use clients::{cgroup_client, client_name, interface_client};
pub use error::DatapathError;
pub use events::{Event, EventReader};
pub use load::decision_log::DecisionLog;
pub use loaded::{Datapath, Preloaded};
pub use maps::{
    flow_counts::FlowCounts,
    health_words::RouteBackend,
    name_cgroups::{MAX_CGROUP_LEVEL, NameCgroup},
    published_names::{NameChange, PublishedName},
    resolvers::{InterceptedResolver, InterceptionStatus, MAX_RESOLVERS, ShimEndpoint},
};
pub use pins::{
    inspect::{
        PinnedNames, PinnedStatus, Removed, discard_prepared, has_pins, inspect,
        pinned_interception, pinned_pools, unload,
    },
    version::Version,
};
pub use redirector_common::{
    event::{DenyReason, EventKind},
    packet::stats::PacketStats,
    stats::{BackendCounters, RouteCounters},
};
pub use settings::Settings;
pub use status::{
    Attachment, BackendStatus, Ejection, EjectionCause, ProgramStatus, RouteStatus, Status,
    UnhealthyBackend,
};
