//! The plugin's side against a plugin that does nothing: which input gives which code.

use coracle_cni_protocol::plugin::{Environment, Output, Plugin, run};
use coracle_cni_protocol::{Code, PluginError};
use serde_json::{Value, json};

const NOOP: Plugin<PluginError> = Plugin {
    name: "noop",
    add: |request| {
        Ok(request
            .config
            .prev_result()
            .unwrap_or_default()
            .unwrap_or_default())
    },
    del: |_| Ok(()),
    check: |_| Err(PluginError::new(Code(107), "broken")),
    gc: None,
    status: None,
    is_own_namespace: Some(|netns| Ok(netns == "/own")),
};

const FULL: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/netns"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/bin"),
];

fn call(changes: &[(&str, &str)], stdin: &str) -> Output {
    let mut environment: std::collections::BTreeMap<_, _> =
        FULL.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    for (name, value) in changes {
        environment.insert(name.to_string(), value.to_string());
    }
    run("noop plugin", &NOOP, Environment(environment), || {
        Ok(stdin.as_bytes().to_vec())
    })
}

fn conf(version: &str) -> String {
    json!({"cniVersion": version, "name": "net", "type": "noop"}).to_string()
}

#[test]
fn each_bad_input_has_its_code() {
    let good = conf("1.1.0");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u32, &'a str);
    let cases: [Case<'_>; 20] = [
        (
            &[("CNI_CONTAINERID", ""), ("CNI_PATH", "")],
            &good,
            4,
            "[CNI_CONTAINERID,CNI_PATH] missing",
        ),
        (&[("CNI_NETNS", "")], &good, 4, "CNI_NETNS"),
        (&[("CNI_CONTAINERID", "a/b")], &good, 4, "CNI_CONTAINERID"),
        (&[("CNI_CONTAINERID", "-a")], &good, 4, "CNI_CONTAINERID"),
        (&[("CNI_IFNAME", "a/b")], &good, 4, "CNI_IFNAME"),
        (&[("CNI_IFNAME", "1234567890123456")], &good, 4, "CNI_IFNAME"),
        (&[("CNI_IFNAME", "..")], &good, 4, "CNI_IFNAME"),
        (&[("CNI_COMMAND", "FROB")], &good, 4, "unknown CNI_COMMAND: FROB"),
        (&[], "{", 6, "JSON"),
        (&[], "", 6, "JSON"),
        (&[], "[]", 6, "object"),
        (&[], r#"{"cniVersion":"1.0.0"}"#, 7, "missing network name"),
        (&[], r#"{"cniVersion":"1.0.0","name":"a b"}"#, 7, "name"),
        (&[], r#"{"cniVersion":"1.0.0","name":7}"#, 6, "name"),
        (&[], &conf("9.9.9"), 1, "incompatible"),
        (
            &[("CNI_COMMAND", "CHECK")],
            &conf("0.3.1"),
            1,
            "does not allow CHECK",
        ),
        (&[("CNI_COMMAND", "GC")], &conf("1.0.0"), 1, "does not allow GC"),
        (
            &[("CNI_COMMAND", "STATUS")],
            &conf("1.0.0"),
            1,
            "does not allow STATUS",
        ),
        (&[("CNI_NETNS", "/own")], &good, 8, "should not be the same"),
        (&[("CNI_COMMAND", "CHECK")], &good, 107, "broken"),
    ];
    for (changes, stdin, code, text) in cases {
        let output = call(changes, stdin);
        assert_eq!(output.code, 1, "{changes:?} {stdin}");
        let error: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(error["code"], code, "{changes:?} {stdin}: {error}");
        assert!(
            error["msg"].as_str().unwrap().contains(text),
            "{changes:?} {stdin}: {error}"
        );
    }
}

#[test]
fn without_a_command_it_says_what_it_is_and_succeeds() {
    let output = call(&[("CNI_COMMAND", "")], "");
    assert_eq!(output.code, 0);
    assert_eq!(
        output.stderr,
        "noop plugin\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    );
    assert_eq!(output.stdout, "");
}

/// They mean something to other plugins: what a plugin does not use, it does not judge.
#[test]
fn arguments_that_are_no_pairs_do_not_matter_to_a_plugin_without_arguments() {
    for args in ["none", "=", ";;", "IP", "A=1;B"] {
        assert_eq!(call(&[("CNI_ARGS", args)], &conf("1.0.0")).code, 0, "{args}");
    }
}

#[test]
fn version_needs_nothing_else_and_does_not_read_input() {
    let only = Environment([("CNI_COMMAND".to_owned(), "VERSION".to_owned())].into());
    let output = run("noop", &NOOP, only, || {
        Err(std::io::Error::other("must not be read"))
    });
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        value["supportedVersions"],
        json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
}

#[test]
fn results_are_written_in_the_version_of_the_configuration() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let prev = json!({"cniVersion": version, "ips": [{"version": "4", "address": "10.0.0.2/24"}]});
        let conf =
            json!({"cniVersion": version, "name": "net", "prevResult": prev, "unknown": [1]}).to_string();
        let output = call(&[], &conf);
        assert_eq!(output.code, 0, "{}", output.stdout);
        let value: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(value["cniVersion"], version);
        assert_eq!(value["ips"][0].get("version").is_some(), version.starts_with('0'));
    }
}

#[test]
fn a_configuration_without_version_is_of_the_first_one() {
    for (version, written) in [
        (json!("0.2.0"), "0.2.0"),
        (json!("0.1.0"), "0.1.0"),
        (json!(""), "0.1.0"),
        (Value::Null, "0.1.0"),
    ] {
        let prev = json!({"ip4": {"ip": "10.0.0.2/24"}});
        let conf = json!({"cniVersion": version, "name": "net", "prevResult": prev}).to_string();
        let value: Value = serde_json::from_str(&call(&[], &conf).stdout).unwrap();
        assert_eq!(
            value,
            json!({"cniVersion": written, "ip4": {"ip": "10.0.0.2/24"}, "dns": {}})
        );
        for command in ["CHECK", "GC", "STATUS"] {
            let refused: Value =
                serde_json::from_str(&call(&[("CNI_COMMAND", command)], &conf).stdout).unwrap();
            assert_eq!(refused["code"], 1, "{command}: {refused}");
        }
    }
}

#[test]
fn del_needs_no_namespace_and_override_allows_the_own() {
    assert_eq!(
        call(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "")], &conf("1.0.0")),
        Output::default()
    );
    assert_eq!(
        call(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "/gone")], &conf("0.3.1")),
        Output::default()
    );
    assert_eq!(
        call(
            &[("CNI_NETNS", "/own"), ("CNI_NETNS_OVERRIDE", "true")],
            &conf("1.0.0")
        )
        .code,
        0
    );
    assert_eq!(
        call(&[("CNI_COMMAND", "GC"), ("CNI_CONTAINERID", "")], &conf("1.1.0")),
        Output::default()
    );
}
