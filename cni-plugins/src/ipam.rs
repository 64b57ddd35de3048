//! Who gives addresses: host-local by a function call when the program that would be run is this one, else the
//! program that `ipam.type` names.

use crate::failure::{Coded, Outcome};
use crate::host_local::{self, Place, Plan};
use crate::owner::Owner;
use coracle_cni_protocol::caller::Program;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CallError, CniResult, Code, NetworkConfig, ResultError};
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

impl Coded for IpamError {
    fn code(&self) -> Code {
        match self {
            // The manager's own code is passed on.
            Self::Call(error) => error.code().unwrap_or(Code::INTERNAL),
            Self::Result(..) | Self::NoAddress(_) => Code::INTERNAL,
        }
    }
}

/// The address manager of a network. `T` is what host-local needs to know: a plan to give addresses, a place to free them.
#[derive(Debug)]
pub(crate) enum Ipam<T> {
    /// The configuration names none: no addresses.
    None,
    /// Ours, in this process.
    HostLocal(T),
    /// Another program.
    Other(Delegate),
}

/// Another program, with what it gets on its standard input: the complete configuration (specification, section 4).
#[derive(Debug)]
pub(crate) struct Delegate {
    kind: String,
    program: Program,
    config: NetworkConfig,
}

impl Ipam<Plan> {
    /// The manager that the configuration names, with all that it is asked for.
    pub(crate) fn of(request: &Request) -> Outcome<Self> {
        let Some((kind, dirs)) = named(request) else {
            return Ok(Self::None);
        };
        let program = Program::find(kind, &dirs).map_err(IpamError::Call)?;
        if is_host_local(kind, &program) {
            return Ok(Self::HostLocal(Plan::of(request)?));
        }
        Ok(Self::Other(Delegate::of(kind, program, request)))
    }

    /// Whether it may want the interface to be there when it is asked for an address: a DHCP client does.
    pub(crate) fn asks_through_interface(&self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// Where host-local keeps the addresses of all networks.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::HostLocal(plan) => Some(&plan.place.data_dir),
            Self::None | Self::Other(_) => None,
        }
    }

    /// ADD.
    pub(crate) fn add(&self) -> Outcome<CniResult> {
        let (kind, result) = match self {
            Self::None => return Ok(CniResult::default()),
            Self::HostLocal(plan) => (OWN_KIND, host_local::allocate(plan)?),
            Self::Other(delegate) => {
                let answer = delegate.call("ADD")?.unwrap_or_default();
                let result = CniResult::parse(&answer)
                    .map_err(|error| IpamError::Result(delegate.kind.clone(), error))?;
                (delegate.kind.as_str(), result)
            }
        };
        if result.ips.is_empty() {
            return Err(IpamError::NoAddress(kind.to_owned()).into());
        }
        Ok(result)
    }

    /// Takes an ADD back.
    pub(crate) fn take_back(&self) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal(plan) => host_local::release(&plan.place).map(drop),
            Self::Other(delegate) => delegate.call("DEL").map(drop),
        }
    }

    /// CHECK.
    pub(crate) fn check(&self) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal(plan) => host_local::find(&plan.place),
            Self::Other(delegate) => delegate.call("CHECK").map(drop),
        }
    }

    /// STATUS.
    pub(crate) fn status(&self) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal(plan) => host_local::has_room(plan),
            Self::Other(delegate) => delegate.call("STATUS").map(drop),
        }
    }
}

impl Ipam<Place> {
    /// The manager that the configuration names, with what it needs to free addresses. One that is not installed gave
    /// none, and nobody could ever ask it: a misspelt name must not keep a container from going.
    pub(crate) fn place(request: &Request) -> Outcome<Self> {
        let Some((kind, dirs)) = named(request) else {
            return Ok(Self::None);
        };
        match Program::find(kind, &dirs) {
            Ok(program) if is_host_local(kind, &program) => {
                Ok(Place::of(request).map_or(Self::None, Self::HostLocal))
            }
            Ok(program) => Ok(Self::Other(Delegate::of(kind, program, request))),
            Err(error @ CallError::Find { .. }) => {
                // Not a failure: whoever calls the plugin by hand sees it.
                eprintln!("ipam: {error}: it is not told that the container is gone");
                Ok(Self::None)
            }
            Err(error) => Err(IpamError::Call(error).into()),
        }
    }

    /// DEL; returns the addresses that were freed, if the manager is ours.
    pub(crate) fn del(&self) -> Outcome<Vec<IpNet>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::HostLocal(place) => host_local::release(place),
            Self::Other(delegate) => delegate.call("DEL").map(|_| Vec::new()),
        }
    }

    /// GC.
    pub(crate) fn gc(&self, keep: &[Owner]) -> Outcome<()> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal(place) => host_local::collect(place, keep),
            Self::Other(delegate) => delegate.call("GC").map(drop),
        }
    }
}

/// The manager's type and where to look for its program.
fn named(request: &Request) -> Option<(&str, Vec<PathBuf>)> {
    let kind = request.config.ipam_kind()?;
    Some((kind, request.path.split(':').map(PathBuf::from).collect()))
}

/// Whether the program that would be run is this one.
fn is_host_local(kind: &str, program: &Program) -> bool {
    kind == OWN_KIND && is_this_program(program.path())
}

impl Delegate {
    fn of(kind: &str, program: Program, request: &Request) -> Self {
        Self {
            kind: kind.to_owned(),
            program,
            config: request.config.clone(),
        }
    }

    /// It gets the same environment, too.
    fn call(&self, command: &str) -> Outcome<Option<serde_json::Value>> {
        let environment = [("CNI_COMMAND".to_owned(), command.to_owned())];
        let answer = self.program.call(&environment, &self.config, LIMIT);
        Ok(answer.map_err(IpamError::Call)?)
    }
}

fn is_this_program(path: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let this = identity(Path::new("/proc/self/exe"));
    this.is_some() && this == identity(path)
}
