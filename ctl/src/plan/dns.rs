//! The pod's resolv.conf.

use coracle_cri_api::runtime_v1::DnsConfig as CriDnsConfig;

use crate::manifest::{DnsConfig, DnsPolicy};

/// What the policy gives, then what the pod adds.
pub(super) fn config(policy: DnsPolicy, added: &DnsConfig, resolv_conf: &str) -> CriDnsConfig {
    let mut config = match policy {
        DnsPolicy::Host => host(resolv_conf),
        DnsPolicy::None => CriDnsConfig::default(),
    };
    append(&mut config.servers, &added.nameservers);
    append(&mut config.searches, &added.searches);
    for option in &added.options {
        // The pod's value of an option replaces the host's.
        let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
        config.options.retain(|other| name(other) != name(option));
        config.options.push(option.clone());
    }
    config
}

/// resolv.conf(5): several `nameserver` lines add up, the last `search` wins.
fn host(resolv_conf: &str) -> CriDnsConfig {
    let mut config = CriDnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

fn append(list: &mut Vec<String>, added: &[String]) {
    for item in added {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}
