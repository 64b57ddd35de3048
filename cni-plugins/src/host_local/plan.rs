//! What the `ipam` part of a configuration asks for, checked.

use super::range::{RangeConfig, RangeError, RangeSet};
use crate::failure::{Outcome, invalid};
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{Code, Dns, PluginError, Route};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::PathBuf;

const DATA_DIR: &str = "/var/lib/cni/networks";

/// A checked `ipam` configuration.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// One address is given from each.
    pub(crate) sets: Vec<RangeSet>,
    /// Routes to hand on.
    pub(crate) routes: Vec<Route>,
    /// Directory of this network's addresses.
    pub(crate) dir: PathBuf,
    /// The same without the network's name.
    pub(crate) data_dir: PathBuf,
    /// File to read name servers from.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Addresses somebody wants.
    pub(crate) requested: Vec<IpAddr>,
}

impl Plan {
    /// Reads and checks the configuration.
    pub(crate) fn of(request: &Request) -> Outcome<Self> {
        if !request
            .config
            .map()
            .get("ipam")
            .is_some_and(serde_json::Value::is_object)
        {
            let text = "ipam: IPAM config missing 'ipam' key, or not an object";
            return Err(PluginError::new(Code::INVALID_CONFIG, text).into());
        }
        let data_dir = data_dir(request)?;
        let resolv_conf: String = of_ipam(request, "resolvConf")?;
        Ok(Self {
            requested: requested(request)?,
            sets: sets(request)?,
            routes: of_ipam(request, "routes")?,
            dir: data_dir.join(&request.network),
            data_dir,
            resolv_conf: Some(resolv_conf)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        })
    }

    /// Reads name servers from the file the configuration names.
    pub(crate) fn dns(&self) -> Outcome<Dns> {
        let Some(path) = &self.resolv_conf else {
            return Ok(Dns::default());
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            PluginError::new(
                Code::IO_FAILURE,
                format!("ipam.resolvConf: read {}: {error}", path.display()),
            )
        })?;
        Ok(parse_resolv_conf(&text))
    }
}

/// The directory of the networks' addresses.
pub(super) fn data_dir(request: &Request) -> Outcome<PathBuf> {
    let data_dir: String = of_ipam(request, "dataDir")?;
    match data_dir.as_str() {
        "" => Ok(DATA_DIR.into()),
        path if path.starts_with('/') => Ok(path.into()),
        _ => Err(invalid("ipam.dataDir", "must be an absolute path")),
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
    let ignore = request
        .args
        .iter()
        .any(|(key, value)| key == "IgnoreUnknown" && (value == "1" || value == "true"));
    for (key, value) in &request.args {
        match key.as_str() {
            "IP" if !value.is_empty() => wanted.push(address("CNI_ARGS: IP", value)?),
            "IP" | "IgnoreUnknown" => {}
            _ if ignore => {}
            _ => {
                let text = format!("CNI_ARGS: unknown args [\"{key}={value}\"]");
                return Err(PluginError::new(Code::INVALID_ENVIRONMENT, text).into());
            }
        }
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
        .ok_or_else(|| invalid(key, format_args!("{text:?} is no IP address")))
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
