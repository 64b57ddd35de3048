//! Ports of the node that lead to a container.

mod node;

use node::{Node, attachment, bridge_conf, caller, list, list_of, on_node, serve, with_ports};
use serde_json::{Value, json};

fn tcp(host: u16) -> Value {
    json!([{"hostPort": host, "containerPort": 80, "protocol": "tcp"}])
}

fn chain(portmap: Value) -> coracle_cni_protocol::ConfList {
    list_of("1.1.0", json!([bridge_conf(), portmap]))
}

#[test]
fn a_host_port_is_reached_from_everywhere_but_v6_localhost() {
    on_node(|node| {
        let (other, second) = (node.other_host(1), node.other_host(2));
        let (a, b) = (node.netns("a"), node.netns("b"));
        let (list, caller) = (list("1.1.0"), caller());
        let attach_a = with_ports(attachment("a", &a), &tcp(8080));
        let result = caller.add(&list, &attach_a).unwrap();
        caller.add(&list, &attachment("b", &b)).unwrap();
        node.check(&list, &attach_a, &result);
        serve(node, &a, 80);
        assert_eq!(
            node.inside(&other, || node::ask("192.0.3.1", 8080)).unwrap(),
            "192.0.3.9"
        );
        assert_eq!(
            node.inside(&other, || node::ask("2001:db8:1::1", 8080)).unwrap(),
            "2001:db8:1::9"
        );
        assert_eq!(
            node.inside(&second, || node::ask("192.0.4.1", 8080)).unwrap(),
            "192.0.4.9"
        );
        for own in ["192.0.3.1", "127.0.0.1", "127.1.2.3", "10.7.0.1", "2001:db8:1::1"] {
            assert!(node::ask(own, 8080).is_ok(), "from the node to {own}");
        }
        assert!(
            node::closed("::1", 8080),
            "::1 comes later: refused at once, not lost"
        );
        for from in [&a, &b] {
            for to in ["192.0.3.1", "10.7.0.1", "2001:db8:1::1"] {
                assert!(
                    node.inside(from, || node::ask(to, 8080)).is_ok(),
                    "from a pod to {to}"
                );
            }
        }
        caller.del(&list, &attach_a, Some(&result), false).unwrap();
        assert!(node::closed("127.0.0.1", 8080));
        assert!(node.inside(&other, || node::closed("192.0.3.1", 8080)));
        caller.del(&list, &attachment("b", &b), None, false).unwrap();
        node.until("the end of the veths", || node.links() == ["cni0"]);
        assert!(!node.rules().contains("elements"), "{}", node.rules());
        node.uninstall("net");
    });
}

/// CVE-2020-8558: `route_localnet` must not open what listens on 127.0.0.1 only.
#[test]
fn localhost_of_the_node_stays_closed_for_pods_and_other_hosts() {
    on_node(|node| {
        let other = node.other_host(1);
        let a = node.netns("a");
        let (list, caller) = (list("1.0.0"), caller());
        let attach = with_ports(attachment("a", &a), &tcp(8080));
        caller.add(&list, &attach).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
        std::thread::spawn(move || while listener.accept().is_ok() {});
        assert!(std::net::TcpStream::connect("127.0.0.1:9999").is_ok());
        for (netns, link, gateway) in [(&a, "eth0", "10.7.0.1"), (&other, "e0", "192.0.3.1")] {
            let closed = node.inside(netns, || {
                // The neighbour sends packets for 127.0.0.1 out instead of keeping them.
                let script = format!(
                    "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 table local; \
                     ip route add 127.0.0.0/8 via {gateway}; sysctl -qw net.ipv4.conf.{link}.route_localnet=1; true"
                );
                assert!(std::process::Command::new("sh").args(["-c", &script]).stderr(std::process::Stdio::null()).status().unwrap().success());
                node::closed("127.0.0.1", 9999)
            });
            assert!(closed, "{link}");
        }
        caller.del(&list, &attach, None, false).unwrap();
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn a_taken_port_is_refused_with_its_owner_and_nothing_is_left() {
    on_node(|node| {
        let (a, b) = (node.netns("a"), node.netns("b"));
        let (list, caller) = (list("1.1.0"), caller());
        let attach_a = with_ports(attachment("a", &a), &tcp(8080));
        let result = caller.add(&list, &attach_a).unwrap();
        let attach_b = with_ports(
            attachment("b", &b),
            &json!([
            {"hostPort": 8081, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}]),
        );
        let error = coracle_cni_protocol::chain(&caller.add(&list, &attach_b).unwrap_err());
        assert!(
            error.contains("8080/tcp") && error.contains("net/a/eth0"),
            "{error}"
        );
        assert!(!node.rules().contains("net/b/"), "{}", node.rules());
        assert_eq!(node.addresses("net").len(), 2);
        // The same port for another protocol and on one address are other ports.
        let other = with_ports(
            attachment("b", &b),
            &json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
            {"hostPort": 8080, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1"}]),
        );
        node.until("the end of the veth", || node.links().len() == 2);
        let second = caller.add(&list, &other).unwrap();
        serve(node, &a, 80);
        serve(node, &b, 81);
        assert_eq!(node::ask("10.7.0.1", 8080).unwrap(), "10.7.0.1");
        assert!(node::ask("127.0.0.1", 8080).is_ok());
        caller.del(&list, &attach_a, Some(&result), false).unwrap();
        assert!(node::closed("10.7.0.1", 8080), "this one was of a");
        assert!(node::ask("127.0.0.1", 8080).is_ok(), "and this one is of b");
        // Without result and without mappings, from the attachment's name alone.
        caller.del(&list, &attachment("b", &b), None, false).unwrap();
        drop(second);
        node.until("the end of the veths", || node.links() == ["cni0"]);
        assert!(!node.rules().contains("elements"), "{}", node.rules());
        node.uninstall("net");
    });
}

#[test]
fn sources_are_translated_as_the_configuration_says() {
    on_node(|node| {
        let other = node.other_host(1);
        let cases = [
            (json!({"snat": true}), "192.0.3.9", true),
            (json!({"masqAll": true}), "10.7.0.1", true),
            (json!({"snat": false}), "192.0.3.9", false),
        ];
        for (at, (options, seen, localhost)) in cases.into_iter().enumerate() {
            let netns = node.netns(&format!("a{at}"));
            let mut portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
            portmap
                .as_object_mut()
                .unwrap()
                .extend(options.as_object().unwrap().clone());
            let (list, caller) = (chain(portmap), caller());
            let attach = with_ports(attachment("a", &netns), &tcp(8080));
            let result = caller.add(&list, &attach).unwrap();
            serve(node, &netns, 80);
            let answer = node.inside(&other, || node::ask("192.0.3.1", 8080)).unwrap();
            assert_eq!(answer, seen, "{options}");
            if localhost {
                assert!(node::ask("127.0.0.1", 8080).is_ok(), "{options}");
            } else {
                assert!(node::closed("127.0.0.1", 8080), "{options}");
            }
            caller.del(&list, &attach, Some(&result), false).unwrap();
            node.until("the end of the veth", || node.links() == ["cni0"]);
            node.uninstall("net");
        }
    });
}

#[test]
fn senders_of_datagrams_are_moved_to_the_new_container() {
    on_node(|node: &Node| {
        let other = node.other_host(1);
        let mapping = json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]);
        let (list, caller) = (list("1.1.0"), caller());
        // A client that keeps its socket, as DNS clients do: its packets are one connection for the kernel.
        let client = node.inside(&other, || std::net::UdpSocket::bind("192.0.3.9:4444").unwrap());
        for name in ["a", "b"] {
            let netns = node.netns(name);
            client.send_to(b"x", "192.0.3.1:5353").unwrap();
            let attach = with_ports(attachment(name, &netns), &mapping);
            let result = caller.add(&list, &attach).unwrap();
            let server = node.inside(&netns, || std::net::UdpSocket::bind("0.0.0.0:53").unwrap());
            server
                .set_read_timeout(Some(std::time::Duration::from_secs(30)))
                .unwrap();
            client.send_to(name.as_bytes(), "192.0.3.1:5353").unwrap();
            // What was sent before may arrive late, and here too.
            let mut text = *b"x";
            while text == *b"x" {
                server.recv(&mut text).unwrap();
            }
            assert_eq!(text, name.as_bytes());
            caller.del(&list, &attach, Some(&result), false).unwrap();
        }
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}
