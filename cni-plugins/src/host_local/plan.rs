//! What the `ipam` part of a configuration asks for, checked.

use super::Holder;
use super::range::{RangeConfig, RangeError, RangeSet};
use crate::failure::{Coded, Outcome, invalid};
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{Code, Dns, Route};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

const DATA_DIR: &str = "/var/lib/cni/networks";

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// There is no `ipam` object.
    #[error("ipam: IPAM config missing 'ipam' key, or not an object")]
    NoIpam,
    /// The file of name servers.
    #[error("ipam.resolvConf: read {path}")]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Coded for PlanError {
    fn code(&self) -> Code {
        match self {
            Self::NoIpam => Code::INVALID_CONFIG,
            Self::ResolvConf { .. } => Code::IO_FAILURE,
        }
    }
}

/// What ADD gives.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Where the addresses are kept.
    pub(crate) place: Place,
    /// One address is given from each.
    pub(crate) sets: Vec<RangeSet>,
    /// Routes to hand on.
    pub(crate) routes: Vec<Route>,
    /// Name servers to hand on.
    pub(crate) dns: Dns,
    /// Addresses somebody wants.
    pub(crate) requested: Vec<IpAddr>,
}

impl Plan {
    /// Reads and checks the configuration.
    pub(crate) fn of(request: &Request) -> Outcome<Self> {
        let ipam = request.config.map().get("ipam");
        if !ipam.is_some_and(serde_json::Value::is_object) {
            return Err(PlanError::NoIpam.into());
        }
        let data_dir = data_dir(request)?;
        let sets = sets(request)?;
        Ok(Self {
            requested: requested(request)?,
            routes: of_ipam(request, "routes")?,
            dns: dns(request)?,
            place: Place::in_dir(data_dir, request, sets.clone()),
            sets,
        })
    }
}

/// Where the addresses of an attachment are kept. Ranges or wishes that ADD refuses do not matter for that: they do not
/// keep a DEL from freeing.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The directory of all networks.
    pub(crate) data_dir: PathBuf,
    /// That of this network.
    pub(crate) dir: PathBuf,
    /// Who has them.
    pub(crate) holder: Holder,
    /// The networks that they may be of, as far as they are known.
    pub(crate) sets: Vec<RangeSet>,
}

impl Place {
    /// The place that the configuration names; none when ADD refuses its directory, and so gave nothing.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let data_dir = data_dir(request).ok()?;
        Some(Self::in_dir(data_dir, request, sets(request).unwrap_or_default()))
    }

    fn in_dir(data_dir: PathBuf, request: &Request, sets: Vec<RangeSet>) -> Self {
        Self {
            dir: data_dir.join(&request.network),
            data_dir,
            holder: Holder::new(&request.container_id, &request.ifname),
            sets,
        }
    }
}

/// The directory of the networks' addresses.
fn data_dir(request: &Request) -> Outcome<PathBuf> {
    let data_dir: String = of_ipam(request, "dataDir")?;
    match data_dir.as_str() {
        "" => Ok(DATA_DIR.into()),
        path if path.starts_with('/') => Ok(path.into()),
        _ => Err(invalid("ipam.dataDir", "must be an absolute path")),
    }
}

/// Name servers from the file that the configuration names.
fn dns(request: &Request) -> Outcome<Dns> {
    let path: String = of_ipam(request, "resolvConf")?;
    if path.is_empty() {
        return Ok(Dns::default());
    }
    let path = PathBuf::from(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(parse_resolv_conf(&text)),
        Err(source) => Err(PlanError::ResolvConf { path, source }.into()),
    }
}

fn of_ipam<T: DeserializeOwned + Default>(request: &Request, key: &str) -> Outcome<T> {
    Ok(request.config.get_in("ipam", key)?.unwrap_or_default())
}

fn sets(request: &Request) -> Outcome<Vec<RangeSet>> {
    let mut configs: Vec<Vec<RangeConfig>> = request
        .config
        .get_in("runtimeConfig", "ipRanges")?
        .unwrap_or_default();
    // One range without a list around it is how it was written before there were lists.
    if request
        .config
        .get_in::<serde_json::Value>("ipam", "subnet")?
        .is_some()
    {
        configs.extend(
            request
                .config
                .get("ipam")?
                .map(|single: RangeConfig| vec![single]),
        );
    }
    configs.extend(of_ipam::<Vec<Vec<RangeConfig>>>(request, "ranges")?);
    if configs.is_empty() {
        return Err(RangeError::None.into());
    }
    let sets: Vec<_> = configs
        .iter()
        .map(|set| RangeSet::plan(set))
        .collect::<Result<_, _>>()?;
    for (index, set) in sets.iter().enumerate() {
        for other in sets.iter().skip(index + 1) {
            set.refuse_overlap(other)?;
        }
    }
    Ok(sets)
}

/// Addresses asked for through `CNI_ARGS`, `args.cni.ips` and the capability `ips`.
fn requested(request: &Request) -> Outcome<Vec<IpAddr>> {
    let mut wanted = Vec::new();
    if let [Some(text)] = request.args.read(["IP"])? {
        wanted.push(address("CNI_ARGS: IP", text)?);
    }
    let args: Option<serde_json::Value> = request.config.get_in("args", "cni")?;
    let of_args = args.and_then(|cni| cni.get("ips").cloned()).unwrap_or_default();
    let of_args: Option<Vec<String>> = serde_json::from_value(of_args)
        .map_err(|_| invalid("args.cni.ips", "must be a list of addresses"))?;
    for text in of_args.unwrap_or_default() {
        wanted.push(address("args.cni.ips", &text)?);
    }
    let of_runtime: Vec<String> = request.config.get_in("runtimeConfig", "ips")?.unwrap_or_default();
    for text in of_runtime {
        wanted.push(address("runtimeConfig.ips", &text)?);
    }
    Ok(wanted)
}

/// An address, with or without length of the network part.
fn address(key: &str, text: &str) -> Outcome<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    plain
        .or_else(|| text.parse::<IpNet>().ok().map(|network| network.addr()))
        .ok_or_else(|| invalid(key, format_args!("{text:?} is not an IP address")))
}

fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
    {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_does() {
        let dns = parse_resolv_conf(
            "# c\nnameserver 10.0.0.1\n nameserver fd00::1\nsearch a b\noptions ndots:5\ndomain x\n;x\nbogus\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(
            (dns.domain.as_str(), dns.search.join(" "), dns.options.join(" ")),
            ("x", "a b".into(), "ndots:5".into())
        );
    }
}
