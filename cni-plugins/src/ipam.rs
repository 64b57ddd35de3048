//! Who gives addresses: host-local by a function call when the program that would be run is this one, else the
//! program that `ipam.type` names.

use crate::failure::Outcome;
use crate::host_local;
use coracle_cni_protocol::caller::Program;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CallError, CniResult, Code, ResultError};
use ipnet::IpNet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another address manager may take; a DHCP lease needs seconds.
const LIMIT: Duration = Duration::from_secs(30);
const OWN_KIND: &str = "host-local";

/// The address manager failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpamError {
    /// Its program.
    #[error("ipam")]
    Call(#[source] CallError),
    /// It gave something else than a result.
    #[error("ipam {0}: the result")]
    Result(String, #[source] ResultError),
    /// It gave no address.
    #[error("ipam {0} returned no IP address")]
    NoAddress(String),
}

impl IpamError {
    /// The manager's own code is passed on.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Call(error) => error.code().unwrap_or(Code::INTERNAL),
            _ => Code::INTERNAL,
        }
    }
}

/// The address manager of a network.
pub(crate) enum Ipam {
    /// The configuration names none: no addresses.
    None,
    /// Ours, in this process.
    HostLocal,
    /// Another program.
    Other(String, Program),
}

impl Ipam {
    /// Finds the manager that the configuration names.
    pub(crate) fn of(request: &Request) -> Outcome<Self> {
        let Some(kind) = request.config.ipam_kind() else {
            return Ok(Self::None);
        };
        let dirs: Vec<PathBuf> = request.path.split(':').map(PathBuf::from).collect();
        match Program::find(kind, &dirs) {
            Ok(program) if kind == OWN_KIND && is_this_program(program.path()) => Ok(Self::HostLocal),
            Ok(program) => Ok(Self::Other(kind.to_owned(), program)),
            Err(error) => Err(IpamError::Call(error).into()),
        }
    }

    /// Whether it may want the interface to be there when it is asked for an address: a DHCP client does.
    pub(crate) fn asks_through_interface(&self) -> bool {
        matches!(self, Self::Other(..))
    }

    /// ADD.
    pub(crate) fn add(&self, request: &Request) -> Outcome<CniResult> {
        let (kind, result) = match self {
            Self::None => return Ok(CniResult::default()),
            Self::HostLocal => (OWN_KIND, host_local::allocate(request)?),
            Self::Other(kind, program) => {
                let answer = call(program, request, "ADD")?.unwrap_or_default();
                let result =
                    CniResult::parse(&answer).map_err(|error| IpamError::Result(kind.clone(), error))?;
                (kind.as_str(), result)
            }
        };
        if result.ips.is_empty() {
            return Err(IpamError::NoAddress(kind.to_owned()).into());
        }
        Ok(result)
    }

    /// DEL; returns the addresses that were freed, if the manager is ours.
    pub(crate) fn del(&self, request: &Request) -> Outcome<Vec<IpNet>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::HostLocal => host_local::release(request),
            Self::Other(_, program) => call(program, request, "DEL").map(|_| Vec::new()),
        }
    }

    /// CHECK.
    pub(crate) fn check(&self, request: &Request) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::check(request),
            Self::Other(_, program) => call(program, request, "CHECK").map(drop),
        }
    }

    /// GC.
    pub(crate) fn gc(&self, request: &Request) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::collect(request),
            Self::Other(_, program) => call(program, request, "GC").map(drop),
        }
    }

    /// STATUS.
    pub(crate) fn status(&self, request: &Request) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::status(request),
            Self::Other(_, program) => call(program, request, "STATUS").map(drop),
        }
    }
}

/// The manager gets the complete configuration and the same environment (specification, section 4).
fn call(program: &Program, request: &Request, command: &str) -> Outcome<Option<serde_json::Value>> {
    let environment = [("CNI_COMMAND".to_owned(), command.to_owned())];
    Ok(program
        .call(&environment, &request.config, LIMIT)
        .map_err(IpamError::Call)?)
}

fn is_this_program(path: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let this = identity(Path::new("/proc/self/exe"));
    this.is_some() && this == identity(path)
}
