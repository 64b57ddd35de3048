//! MAC addresses in configurations.

use crate::failure::{Outcome, invalid};
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::route::link::Mac;
use serde_json::Value;

/// `CNI_ARGS` MAC, then `args.cni.mac`, then the capability `mac`: the last one that is set wins.
pub(crate) fn wanted(request: &Request) -> Outcome<Option<Mac>> {
    let [of_environment] = request.args.read(["MAC"])?;
    let of_environment = of_environment.map(str::to_owned);
    let args: Option<Value> = request.config.get_in("args", "cni")?;
    let of_args = args.and_then(|cni| cni.get("mac").and_then(Value::as_str).map(str::to_owned));
    let of_runtime: Option<String> = request.config.get_in("runtimeConfig", "mac")?;
    let named = [
        ("runtimeConfig.mac", of_runtime),
        ("args.cni.mac", of_args),
        ("CNI_ARGS: MAC", of_environment),
    ];
    for (key, text) in named {
        if let Some(mac) = of_key(key, text)? {
            return Ok(Some(mac));
        }
    }
    Ok(None)
}

/// The value of a key; an empty one counts as absent.
pub(crate) fn of_key(key: &str, text: Option<String>) -> Outcome<Option<Mac>> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => parse(&text)
            .map(Some)
            .ok_or_else(|| invalid(key, format_args!("{text:?} is not a MAC address"))),
        None => Ok(None),
    }
}

/// `02:00:00:00:00:01`; not a multicast address and not zero.
pub(crate) fn parse(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect::<Option<_>>()?;
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(Mac(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_unicast() {
        assert_eq!(parse("02:00:00:00:00:0f"), Some(Mac([2, 0, 0, 0, 0, 15])));
        for bad in [
            "",
            "02:00:00:00:00",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "2:0:0:0:0:0:",
            "zz:00:00:00:00:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
