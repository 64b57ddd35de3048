//! The form of results before 0.3.0: one address of each family, with its gateway and its routes.

use super::{CniResult, Dns, IpConfig, Route, or_default};
use crate::version::Version;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

#[derive(Debug, Deserialize)]
struct FirstForm {
    #[serde(default)]
    ip4: Option<Family>,
    #[serde(default)]
    ip6: Option<Family>,
    #[serde(default, deserialize_with = "or_default")]
    dns: Dns,
}

#[derive(Debug, Serialize, Deserialize)]
struct Family {
    #[serde(deserialize_with = "super::network")]
    ip: IpNet,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::empty_is_none"
    )]
    gateway: Option<IpAddr>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    routes: Vec<Route>,
}

/// Reads a result of this form.
pub(super) fn parse(value: &Value) -> Result<CniResult, serde_json::Error> {
    let first = FirstForm::deserialize(value)?;
    let mut result = CniResult {
        dns: first.dns,
        ..CniResult::default()
    };
    for family in [first.ip4, first.ip6].into_iter().flatten() {
        result.ips.push(IpConfig {
            address: family.ip,
            gateway: family.gateway,
            interface: None,
            extra: Map::new(),
        });
        result.routes.extend(family.routes);
    }
    Ok(result)
}

/// Writes the first address of each family; a route of a family without address has no place.
pub(super) fn to_json(result: &CniResult, version: Version) -> Value {
    let family = |v4: bool| {
        let ip = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4)?;
        let routes = result.routes.iter();
        Some(Family {
            ip: ip.address,
            gateway: ip.gateway,
            routes: routes
                .filter(|route| route.dst.addr().is_ipv4() == v4)
                .map(super::without_1_1_0)
                .collect(),
        })
    };
    let mut object = Map::new();
    object.insert("cniVersion".to_owned(), version.into());
    for (key, family) in [("ip4", family(true)), ("ip6", family(false))] {
        if let Some(family) = family {
            object.insert(key.to_owned(), json!(family));
        }
    }
    object.insert("dns".to_owned(), json!(result.dns));
    Value::Object(object)
}
