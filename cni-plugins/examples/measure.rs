//! Measures ADD and DEL of a chain of plugins, one after the other, on a node of its own.
//!
//! `measure BIN_DIR COUNT LIVE VERSION MASQUERADE PORTS [firewall tuning]`: COUNT pods are attached and detached while
//! LIVE others stay; prints minimum, median and 95th percentile in milliseconds. Needs root. Plugins are found in BIN_DIR
//! (for upstream's: `/usr/lib/cni`).

#![allow(clippy::indexing_slicing, reason = "arguments are counted first")]

use coracle_cni_protocol::{Attachment, Caller, ConfList};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the one before leaves to the kernel is done by then.
const PAUSE: Duration = Duration::from_millis(40);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() < 7 {
        eprintln!("usage: measure BIN_DIR COUNT LIVE VERSION MASQUERADE PORTS [PLUGIN ...]");
        return;
    }
    let (count, live): (usize, usize) = (args[2].parse().unwrap(), args[3].parse().unwrap());
    let ports: u16 = args[6].parse().unwrap();
    enter_node();
    let list = list(&args, ports);
    let caller = Caller::new(vec![PathBuf::from(&args[1])]);
    for n in 0..live {
        caller.add(&list, &attachment(n, ports)).unwrap();
    }
    for goes_away in [false, true] {
        let from = live + count * usize::from(goes_away);
        let attachments = (from..from + count).map(|n| attachment(n, ports));
        Times::of(&caller, &list, attachments, goes_away).print(goes_away);
    }
}

/// Private mount and network namespaces with an own `/run`.
fn enter_node() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    coracle_linux::link::lo_up().unwrap();
}

fn list(args: &[String], ports: u16) -> ConfList {
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": args[5] == "true",
        "ipam": {"type": "host-local", "dataDir": "/run/ipam",
                 "ranges": [[{"subnet": "10.7.0.0/16"}], [{"subnet": "fd07::/64"}]]},
    })];
    if ports > 0 {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    }
    plugins.extend(args[7..].iter().map(|kind| json!({"type": kind})));
    let list = json!({"cniVersion": args[4], "name": "net", "plugins": plugins});
    ConfList::parse(list.to_string().as_bytes()).unwrap()
}

fn attachment(n: usize, ports: u16) -> Attachment {
    let base = 10_000 + u16::try_from(n % 20_000).unwrap() * ports;
    let mappings: Vec<Value> = (0..ports)
        .map(|p| json!({"hostPort": base + p, "containerPort": 80, "protocol": "tcp"}))
        .collect();
    Attachment {
        container_id: format!("c{n}"),
        netns: Some(netns(n)),
        ifname: "eth0".into(),
        capabilities: json!({"portMappings": mappings}).as_object().unwrap().clone(),
        ..Attachment::default()
    }
}

#[derive(Default)]
struct Times {
    adds: Vec<Duration>,
    dels: Vec<Duration>,
    add_cpu: Vec<Duration>,
    del_cpu: Vec<Duration>,
}

impl Times {
    fn of(
        caller: &Caller,
        list: &ConfList,
        attachments: impl Iterator<Item = Attachment>,
        goes_away: bool,
    ) -> Self {
        let mut times = Self::default();
        for attachment in attachments {
            std::thread::sleep(PAUSE);
            let (start, used) = (Instant::now(), cpu());
            let result = caller.add(list, &attachment).unwrap();
            times.adds.push(start.elapsed());
            times.add_cpu.push(cpu() - used);
            std::thread::sleep(PAUSE);
            let (start, used) = (Instant::now(), cpu());
            caller.del(list, &attachment, Some(&result), goes_away).unwrap();
            times.dels.push(start.elapsed());
            times.del_cpu.push(cpu() - used);
            nix::mount::umount(attachment.netns.as_ref().unwrap()).unwrap();
        }
        times
    }

    fn print(self, goes_away: bool) {
        print("ADD", self.adds);
        print("ADD cpu", self.add_cpu);
        print("DEL cpu", self.del_cpu);
        let del = if goes_away {
            "DEL (namespace goes away)"
        } else {
            "DEL"
        };
        print(del, self.dels);
    }
}

/// Processor time of the plugins so far.
fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap()))
        .sum()
}

fn netns(n: usize) -> PathBuf {
    let path = PathBuf::from(format!("/run/netns-{n}"));
    std::fs::write(&path, "").unwrap();
    let target = path.clone();
    std::thread::spawn(move || {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        mount(
            Some("/proc/thread-self/ns/net"),
            &target,
            none,
            MsFlags::MS_BIND,
            none,
        )
        .unwrap();
    })
    .join()
    .unwrap();
    path
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1000.0;
    println!(
        "{what:<28} min {:6.2}  median {:6.2}  p95 {:6.2}",
        ms(0),
        ms(times.len() / 2),
        ms(times.len() * 95 / 100)
    );
}
