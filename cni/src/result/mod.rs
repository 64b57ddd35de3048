//! The result of ADD, in one shape for all versions; the version only matters when it is written or read.

mod first;

use crate::version::Version;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A result cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// Not of the expected shape.
    #[error("the result does not have the form of a CNI result")]
    Shape(#[source] serde_json::Error),
    /// Not a version of ours.
    #[error("the result has version {0:?}, known are {known}", known = Version::list())]
    Version(String),
    /// An address belongs to an interface that is not listed.
    #[error("ips[{ip}].interface is {interface}, but the result lists {count} interfaces")]
    Interface {
        /// Index of the address.
        ip: usize,
        /// What it says.
        interface: i64,
        /// How many there are.
        count: usize,
    },
}

/// What an attachment got. Unknown keys are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CniResult {
    /// Interfaces made, on the host and in the container.
    #[serde(default, deserialize_with = "or_default")]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<IpConfig>,
    /// Routes in the container.
    #[serde(default, deserialize_with = "or_default")]
    pub routes: Vec<Route>,
    /// Name servers.
    #[serde(default, deserialize_with = "or_default")]
    pub dns: Dns,
    /// Keys this library does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// MAC address.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub mac: String,
    /// Largest packet, in bytes (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the namespace it is in; empty on the host.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub sandbox: String,
    /// Unknown keys, among them socketPath and pciID of 1.1.0.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Address and length of the network part.
    #[serde(deserialize_with = "network")]
    pub address: IpNet,
    /// Way out of the network.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_is_none"
    )]
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces; none from an address manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// Unknown keys (`version` of 0.x is read as such and derived when written).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination network.
    #[serde(deserialize_with = "network")]
    pub dst: IpNet,
    /// Next hop; without one the gateway of the address of the same family.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_is_none"
    )]
    pub gw: Option<IpAddr>,
    /// Largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest TCP segment, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Lower wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// 0 global, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Name servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of servers.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub domain: String,
    /// Domains to search.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Reads a result of any of our versions and checks its references.
    pub fn parse(value: &Value) -> Result<Self, ResultError> {
        let version = value
            .get("cniVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if Version::from_text(version).is_none() {
            return Err(ResultError::Version(version.to_owned()));
        }
        // By its form, not by its version: some plugins say none.
        if value.get("ip4").or_else(|| value.get("ip6")).is_some() {
            return first::parse(value).map_err(ResultError::Shape);
        }
        let mut result = Self::deserialize(value).map_err(ResultError::Shape)?;
        result.extra.remove("cniVersion");
        for (index, ip) in result.ips.iter_mut().enumerate() {
            ip.extra.remove("version");
            let Some(interface) = ip.interface else { continue };
            if usize::try_from(interface).map_or(true, |at| at >= result.interfaces.len()) {
                return Err(ResultError::Interface {
                    ip: index,
                    interface,
                    count: result.interfaces.len(),
                });
            }
        }
        Ok(result)
    }

    /// Writes the result as this version has it.
    ///
    /// From 1.0.0 on empty `dns` is left out; before, addresses carry `version`, and what 1.1.0 added to interfaces
    /// and routes is left out. (1.0.0 and 1.1.0 share one form, as upstream.) Before 0.3.0 there are no interfaces, and
    /// one address of each family with the routes of that.
    pub fn to_json(&self, version: Version) -> Value {
        if !version.has_interfaces() {
            return first::to_json(self, version);
        }
        let modern = version >= Version::V1_0_0;
        let mut object = self.extra.clone();
        object.insert("cniVersion".to_owned(), version.into());
        let mut put = |key: &str, list: Vec<Value>| {
            if !list.is_empty() {
                object.insert(key.to_owned(), Value::Array(list));
            }
        };
        put(
            "interfaces",
            self.interfaces
                .iter()
                .map(|interface| interface_json(interface, modern))
                .collect(),
        );
        put("ips", self.ips.iter().map(|ip| ip_json(ip, modern)).collect());
        put(
            "routes",
            self.routes
                .iter()
                .map(|route| route_json(route, modern))
                .collect(),
        );
        if !modern || !self.dns.is_empty() {
            object.insert("dns".to_owned(), json!(self.dns));
        }
        Value::Object(object)
    }
}

fn interface_json(interface: &Interface, modern: bool) -> Value {
    let mut shown = interface.clone();
    if !modern {
        shown.mtu = None;
        shown.extra.remove("socketPath");
        shown.extra.remove("pciID");
    }
    json!(shown)
}

fn ip_json(ip: &IpConfig, modern: bool) -> Value {
    let mut value = json!(ip);
    if let (false, Some(object)) = (modern, value.as_object_mut()) {
        let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
        object.insert("version".to_owned(), Value::from(family));
    }
    value
}

fn route_json(route: &Route, modern: bool) -> Value {
    if modern {
        json!(route)
    } else {
        json!(without_1_1_0(route))
    }
}

/// A route as it was before 1.1.0.
fn without_1_1_0(route: &Route) -> Route {
    Route {
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
        ..route.clone()
    }
}

/// Go writes absent lists as null.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Some plugins write an absent address as an empty string.
fn network<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a network such as 10.1.0.0/16")))
}

fn empty_is_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not an IP address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({
            "cniVersion": "1.1.0", "vendor": {"x": 1},
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/run/netns/a", "pciID": "p"}],
            "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0}, {"address": "fd00::5/64", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "mtu": 1300, "table": 7}],
        })
    }

    #[test]
    fn the_newest_form_is_kept_with_unknown_keys() {
        assert_eq!(
            CniResult::parse(&sample()).unwrap().to_json(Version::V1_1_0),
            sample()
        );
    }

    #[test]
    fn older_forms_name_the_family_and_drop_what_they_do_not_know() {
        let old = CniResult::parse(&sample()).unwrap().to_json(Version::V0_4_0);
        assert_eq!(old["cniVersion"], "0.4.0");
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["dns"], json!({}));
        assert_eq!(old["routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert_eq!(old["interfaces"][0].get("mtu"), None);
        assert_eq!(old["interfaces"][0].get("pciID"), None);
        let again = CniResult::parse(&old).unwrap().to_json(Version::V1_0_0);
        assert_eq!(again["ips"], sample()["ips"]);
    }

    #[test]
    fn the_first_form_has_one_address_of_each_family_with_its_routes() {
        let mut both = sample();
        both["ips"]
            .as_array_mut()
            .unwrap()
            .push(json!({"address": "10.2.0.5/24", "interface": 0}));
        both["dns"] = json!({"nameservers": ["10.1.0.9"]});
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let old = CniResult::parse(&both).unwrap().to_json(version);
            let want = json!({
                "cniVersion": version.as_str(),
                "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
                "ip6": {"ip": "fd00::5/64"},
                "dns": {"nameservers": ["10.1.0.9"]},
            });
            assert_eq!(old, want);
            let again = CniResult::parse(&old).unwrap();
            assert_eq!(again.to_json(version), want);
            let new = again.to_json(Version::V1_0_0);
            assert_eq!(
                new["ips"],
                json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}])
            );
            assert_eq!(new["routes"], json!([{"dst": "0.0.0.0/0"}]));
            assert_eq!(new["dns"], want["dns"]);
        }
    }

    #[test]
    fn a_reference_to_nowhere_is_refused() {
        for interface in [1, -1] {
            let mut value = sample();
            value["ips"][0]["interface"] = json!(interface);
            assert!(matches!(
                CniResult::parse(&value),
                Err(ResultError::Interface { .. })
            ));
        }
        assert!(CniResult::parse(&json!({"cniVersion": "9.9.9"})).is_err());
        assert!(CniResult::parse(&json!({"ips": [{"address": "300.1.1.1/8"}]})).is_err());
        assert!(CniResult::parse(&json!({"ips": null, "dns": null})).is_ok());
    }
}
