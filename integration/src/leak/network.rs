//! Facts about the node's network, asked of the system's own tools, so that a fault of ours cannot hide itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::node::Node;

/// Name and kind of each device.
pub(super) fn links(node: &Node) -> BTreeSet<String> {
    json(node, &["ip", "-j", "-d", "link"])
        .iter()
        .map(|link| {
            let kind = &link["linkinfo"]["info_kind"];
            format!(
                "{} ({})",
                text(&link["ifname"]),
                kind.as_str().unwrap_or("device")
            )
        })
        .collect()
}

/// Device and address.
pub(super) fn addresses(node: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for link in json(node, &["ip", "-j", "addr"]) {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            found.insert(format!(
                "{} {}/{}",
                text(&link["ifname"]),
                text(&address["local"]),
                address["prefixlen"]
            ));
        }
    }
    found
}

/// Every route of every table, with what tells it from another.
pub(super) fn routes(node: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        for route in json(node, &["ip", "-j", family, "route", "show", "table", "all"]) {
            if ["fe80:", "ff00:"]
                .iter()
                .any(|own| text(&route["dst"]).starts_with(own))
            {
                continue;
            }
            let field = |key: &str| {
                route[key]
                    .as_str()
                    .map(|value| format!(" {key} {value}"))
                    .unwrap_or_default()
            };
            found.insert(format!(
                "{family}{}{}{}{}{}",
                field("type"),
                field("dst"),
                field("gateway"),
                field("dev"),
                field("table")
            ));
        }
    }
    found
}

/// Every object of the ruleset, and each element of a set or map as a fact of its own. Handles and counters are left out.
pub(super) fn nftables(node: &Node) -> BTreeSet<String> {
    let ruleset: Value =
        serde_json::from_str(&node.output(&["nft", "-j", "list", "ruleset"])).expect("nft prints JSON");
    let mut found = BTreeSet::new();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        if kind == "metainfo" {
            continue;
        }
        let mut body = body.clone();
        let elements = body.as_object_mut().and_then(|fields| fields.remove("elem"));
        forget_counts(&mut body);
        for element in elements.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let mut element = element.clone();
            forget_counts(&mut element);
            found.insert(format!(
                "element of {} {} {}: {element}",
                text(&body["family"]),
                text(&body["table"]),
                text(&body["name"])
            ));
        }
        found.insert(format!("{kind} {body}"));
    }
    found
}

/// What differs between two looks at one object.
fn forget_counts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for key in ["handle", "packets", "bytes", "expires"] {
                fields.remove(key);
            }
            fields.values_mut().for_each(forget_counts);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_counts),
        _ => {}
    }
}

fn json(node: &Node, words: &[&str]) -> Vec<Value> {
    let said = node.output(words);
    // ip prints nothing at all for an empty list of some kinds.
    if said.trim().is_empty() {
        return Vec::new();
    }
    serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{words:?} did not print JSON: {error}: {said}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
