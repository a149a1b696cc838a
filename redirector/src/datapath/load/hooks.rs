//! The hooks of our programs.

use std::sync::OnceLock;

use aya_obj::{
    ProgramSection,
    generated::bpf_attach_type,
    programs::{CgroupSockAddrAttachType, CgroupSockAttachType},
};
use redirector_common::names;

use crate::datapath::{error::DatapathError, load::object};

/// A place in the kernel where a program of ours runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// As in the name of the program's section: `connect4`.
    pub(crate) name: &'static str,
    /// As bpf(2) has it.
    pub(crate) attach_type: bpf_attach_type,
}

/// The hooks of all our programs. The object itself names them, by its sections.
///
/// # Errors
///
/// When the embedded object can't be read.
pub(crate) fn hooks() -> Result<&'static [Hook], DatapathError> {
    static HOOKS: OnceLock<Vec<Hook>> = OnceLock::new();
    if let Some(hooks) = HOOKS.get() {
        return Ok(hooks);
    }
    let object = object::parse()?;
    let of_program = |name: &str| {
        let program = object.programs.get(name);
        program.and_then(|program| hook(&program.section)).ok_or_else(|| {
            DatapathError::call(format!("find the hook of {name} in the object"), "not there")
        })
    };
    let hooks = names::program_names().map(of_program).collect::<Result<_, _>>()?;
    Ok(HOOKS.get_or_init(|| hooks))
}

fn hook(section: &ProgramSection) -> Option<Hook> {
    use CgroupSockAddrAttachType as SockAddr;
    let (name, attach_type) = match *section {
        ProgramSection::SockOps => ("sock_ops", bpf_attach_type::BPF_CGROUP_SOCK_OPS),
        ProgramSection::CgroupSock { attach_type: kind @ CgroupSockAttachType::SockRelease } => {
            ("sock_release", kind.into())
        }
        ProgramSection::CgroupSockAddr { attach_type } => {
            let name = match attach_type {
                SockAddr::Connect4 => "connect4",
                SockAddr::Connect6 => "connect6",
                SockAddr::UDPSendMsg4 => "sendmsg4",
                SockAddr::UDPSendMsg6 => "sendmsg6",
                SockAddr::UDPRecvMsg4 => "recvmsg4",
                SockAddr::UDPRecvMsg6 => "recvmsg6",
                SockAddr::GetPeerName4 => "getpeername4",
                SockAddr::GetPeerName6 => "getpeername6",
                _ => return None,
            };
            (name, attach_type.into())
        }
        _ => return None,
    };
    Some(Hook { name, attach_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_hook_of_its_own() {
        let hooks = hooks().expect("the embedded object");
        let names: std::collections::BTreeSet<_> = hooks.iter().map(|hook| hook.name).collect();
        assert_eq!((hooks.len(), names.len()), (names::PROGRAMS.len(), names::PROGRAMS.len()));
    }
}
