//! The embedded programs, and loading them onto new or pinned maps.

use std::{
    borrow::Cow,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, ProgramArray, RingBuf},
    programs::{Program, ProgramError},
    sys::BpfHelper,
};
use redirector_common::{
    abi,
    addr::Ip4Be,
    backend::Health,
    decide::{Pool4, Pool6},
    names,
    packet::name_filter,
};

use crate::{
    datapath::{
        address::ip6,
        checks::kernel,
        error::{self, DatapathError},
        load::{copying_programs, decision_log::DecisionLog, strip_helper},
        pins::{layout::Pins, version::Version},
        status::ProgramStatus,
    },
    pool::Pool,
};

/// The programs, built by `cargo xtask build-ebpf`.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirector-ebpf"));

/// The same programs, which log each decision.
static LOGGING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirector-ebpf-debug"));

/// The embedded objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// The programs.
    Plain,
    /// The programs that log each decision.
    Logging,
}

impl Build {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Plain => OBJECT,
            Self::Logging => LOGGING_OBJECT,
        }
    }
}

/// The helper that sets the errno of a refused connect (uapi/linux/bpf.h); connect programs have it
/// since 6.1.
pub(crate) const BPF_SET_RETVAL: u32 = 187;

/// The helper that reads the command name of the calling process.
const BPF_GET_CURRENT_COMM: u32 = BpfHelper::BPF_FUNC_get_current_comm as u32;

/// The loaded object.
pub(crate) struct Object {
    ebpf: Ebpf,
    /// Why this kernel refused a program of the packet datapath; the others work without it.
    packet_error: Option<DatapathError>,
}

impl Object {
    /// Loads every program. With `pins`, pinned maps are reused and new ones are pinned.
    pub(crate) fn load(
        build: Build,
        pool: &Pool,
        version: &Version,
        pins: Option<&Pins>,
    ) -> Result<Self, DatapathError> {
        let mut object = Self::load_only(build, pool, version, pins)?;
        object.link();
        Ok(object)
    }

    /// As [`Object::load`], but changes nothing in maps that exist. [`Object::link`] has to follow.
    pub(crate) fn load_only(
        build: Build,
        pool: &Pool,
        version: &Version,
        pins: Option<&Pins>,
    ) -> Result<Self, DatapathError> {
        raise_memlock();
        let ebpf = load_maps(build, pool, version, pins)
            .map_err(|error| error::from_ebpf("create the maps", error))?;
        let mut object = Self { ebpf, packet_error: None };
        for name in names::program_names() {
            object.load_program(name)?;
        }
        let mut packet_programs = names::PACKET_PROGRAMS.iter();
        object.packet_error =
            packet_programs.find_map(|program| object.load_program(program.name).err());
        Ok(object)
    }

    /// Completes [`Object::load_only`].
    pub(crate) fn link(&mut self) {
        if self.packet_error.is_none() {
            self.packet_error = self.link_tail_call().err();
        }
    }

    /// The kernel's number of the map called `name`.
    pub(crate) fn map_id(&self, name: &str) -> Option<u32> {
        let Map::Array(map) = self.ebpf.map(name)? else { return None };
        map.info().ok().map(|info| info.id())
    }

    /// Lets [`names::EGRESS`] continue with [`names::HOST_EGRESS`].
    fn link_tail_call(&mut self) -> Result<(), DatapathError> {
        let failed = |error: &dyn std::error::Error| {
            DatapathError::call("write the map of tail calls", error.to_string())
        };
        let mut tail_calls = ProgramArray::try_from(self.take_map(names::TAIL_CALLS)?)
            .map_err(|error| failed(&error))?;
        let Program::SchedClassifier(program) = self.program(names::HOST_EGRESS)? else {
            return Err(failed(&ProgramError::UnexpectedProgramType));
        };
        let program = program.fd().map_err(|error| failed(&error))?;
        tail_calls.set(0, program, 0).map_err(|error| failed(&error))
    }

    fn load_program(&mut self, name: &str) -> Result<(), DatapathError> {
        load_program(self.program(name)?)
            .map_err(|error| error::from_program(&format!("load the program {name}"), error))
    }

    /// Why the packet datapath is not available on this kernel.
    pub(crate) fn packet_error(&self) -> Option<&DatapathError> {
        self.packet_error.as_ref()
    }

    /// The program called `name`.
    pub(crate) fn program(&mut self, name: &str) -> Result<&mut Program, DatapathError> {
        self.ebpf.program_mut(name).ok_or_else(|| {
            DatapathError::call(format!("find the program {name} in the object"), "not there")
        })
    }

    /// Takes an array out of the object.
    pub(crate) fn array<V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> Result<Array<MapData, V>, DatapathError> {
        Array::try_from(self.take_map(name)?)
            .map_err(|error| DatapathError::call(format!("open the map {name}"), error))
    }

    /// Takes a hash map out of the object.
    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> Result<HashMap<MapData, K, V>, DatapathError> {
        HashMap::try_from(self.take_map(name)?)
            .map_err(|error| DatapathError::call(format!("open the map {name}"), error))
    }

    /// Takes a trie out of the object.
    pub(crate) fn trie<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> Result<LpmTrie<MapData, K, V>, DatapathError> {
        LpmTrie::try_from(self.take_map(name)?)
            .map_err(|error| DatapathError::call(format!("open the map {name}"), error))
    }

    fn take_map(&mut self, name: &str) -> Result<Map, DatapathError> {
        self.ebpf.take_map(name).ok_or_else(|| {
            DatapathError::call(format!("find the map {name} in the object"), "not there")
        })
    }

    /// Takes a ring buffer out of the object.
    pub(crate) fn ring(&mut self, name: &str) -> Result<RingBuf<MapData>, DatapathError> {
        RingBuf::try_from(self.take_map(name)?)
            .map_err(|error| DatapathError::call(format!("open the ring buffer {name}"), error))
    }

    /// Takes the log out of an object that was built to log.
    pub(crate) fn decision_log(&mut self) -> Result<DecisionLog, DatapathError> {
        DecisionLog::open(&mut self.ebpf)
            .map_err(|error| DatapathError::call("open the log of the programs", error))
    }

    /// The loaded programs, with the verifier's statistics.
    pub(crate) fn programs(&self) -> Vec<ProgramStatus> {
        let packet = names::PACKET_PROGRAMS.iter().map(|program| program.name);
        let infos = names::program_names()
            .chain(packet)
            .filter_map(|name| Some((name, self.ebpf.program(name)?.info().ok()?)));
        infos
            .map(|(name, info)| ProgramStatus {
                name: name.to_owned(),
                id: info.id(),
                verified_instructions: info.verified_instruction_count(),
                jited_bytes: info.size_jitted(),
            })
            .collect()
    }
}

/// The embedded object, parsed.
pub(crate) fn parse() -> Result<aya_obj::Object, DatapathError> {
    aya_obj::Object::parse(OBJECT)
        .map_err(|error| DatapathError::call("read the embedded programs", error))
}

fn load_maps(
    build: Build,
    pool: &Pool,
    version: &Version,
    pins: Option<&Pins>,
) -> Result<Ebpf, EbpfError> {
    let constants = constants(pool);
    let mut loader = EbpfLoader::new();
    for (name, value) in &constants {
        loader.override_global(name, value, true);
    }
    for (name, entries) in map_sizes(pool, version) {
        loader.map_max_entries(name, entries);
    }
    for name in names::MAPS {
        if let Some(pins) = pins {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    loader.load(&object_for_this_kernel(build))
}

/// The load-time constants that describe the pool.
pub(crate) fn constants(pool: &Pool) -> Vec<(&'static str, u32)> {
    let pool4 = Pool4::new(
        Ip4Be::from_octets(pool.ipv4.network().octets()),
        u32::from(pool.ipv4.prefix_len()),
    );
    let pool6 = pool.ipv6.map(|net| Pool6::new(ip6(net.network()), pool4).base.0);
    let mut constants = vec![
        (names::HAS_POOL6, u32::from(pool6.is_some())),
        (names::POOL4_BASE, pool4.base.0),
        (names::POOL4_MASK, pool4.mask),
    ];
    constants.extend(names::POOL6_BASE.into_iter().zip(pool6.unwrap_or_default()));
    constants
}

/// The object without what this kernel refuses: helper calls, and direct access to packets.
fn object_for_this_kernel(build: Build) -> Cow<'static, [u8]> {
    let mut object = Cow::Borrowed(build.bytes());
    if !kernel::has_set_retval() {
        object = strip_helper::without(&object, BPF_SET_RETVAL).into();
    }
    if !kernel::has_direct_access() {
        object = copying_programs::chosen(&object).into();
    }
    if !kernel::has_current_comm() {
        object = strip_helper::without(&object, BPF_GET_CURRENT_COMM).into();
    }
    object
}

/// The entries of the maps whose size depends on the pool.
pub(crate) fn map_sizes(pool: &Pool, version: &Version) -> [(&'static str, u32); 15] {
    let addresses = pool.size();
    let backends = abi::backends(addresses);
    let extra = |name| {
        version
            .extra_entries
            .iter()
            .find(|(larger, _)| *larger == name)
            .map_or(0, |&(_, extra)| extra)
    };
    [
        (names::ROUTES, addresses),
        (names::SLOTS, abi::slots(addresses)),
        (names::HEALTH, backends * Health::WORDS),
        (names::ROUTE_STATS, addresses),
        (names::BACKEND_STATS, backends),
        (names::BACKENDS6, backends),
        (names::ROUTE_TIMES, addresses),
        (names::BACKEND_TIMES, backends),
        // A change of the hash's seed has every name twice.
        (names::NAMES, addresses.saturating_mul(2)),
        (names::LONG_NAMES, addresses.saturating_mul(2)),
        (names::NAME_FILTER, name_filter::words(addresses)),
        (names::WILDCARDS, addresses),
        (names::REVERSE_NAMES, addresses),
        (names::ANSWERS, addresses),
        (names::EXPIRED_FLOWS, addresses),
    ]
    .map(|(name, entries)| (name, entries + extra(name)))
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Before 5.11 RLIMIT_MEMLOCK limits the memory of maps. If it can't be raised, creating maps
/// returns EPERM and the error names this cause.
fn raise_memlock() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited).is_err() {
        tracing::debug!("RLIMIT_MEMLOCK stays as it is: only kernels before 5.11 need more");
    }
}

/// The descriptor of a loaded program.
pub(crate) fn program_fd(program: &Program) -> Result<std::os::fd::BorrowedFd<'_>, DatapathError> {
    let fd = program
        .fd()
        .map_err(|error| DatapathError::call("get a loaded program's descriptor", error))?;
    // SAFETY: the program owns the descriptor and is borrowed as long as the result lives.
    Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_fd().as_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use aya_obj::{ProgramSection, generated::bpf_attach_type};

    use super::*;

    fn attach_type(section: &ProgramSection) -> Option<bpf_attach_type> {
        match *section {
            ProgramSection::SockOps => Some(bpf_attach_type::BPF_CGROUP_SOCK_OPS),
            ProgramSection::CgroupSock { attach_type } => Some(attach_type.into()),
            ProgramSection::CgroupSockAddr { attach_type } => Some(attach_type.into()),
            _ => None,
        }
    }

    #[test]
    fn each_program_is_built_for_its_hook() {
        for build in [Build::Plain, Build::Logging] {
            let object = aya_obj::Object::parse(build.bytes()).expect("an object");
            for program in names::PROGRAMS {
                let built = object.programs.get(program.name).expect(program.name);
                let expected = Some(program.hook.attach_type());
                assert_eq!(
                    attach_type(&built.section).map(|kind| kind as u32),
                    expected,
                    "{program:?}"
                );
            }
        }
    }
}
