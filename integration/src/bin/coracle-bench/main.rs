//! `make bench`: pods on `coracled` beside containerd with runc, and `coracle run` beside crun, on this machine, now.
//!
//! The two sides take turns within one run, with pauses, so that what else the machine does meets both alike; medians are
//! compared. Times are the caller's: from request to answer over the socket, from start to exit of a command. Processor
//! time is what the kernel accounts to a cgroup that holds everything of one side: the daemon, what it starts, the pods.

mod attach;
mod bundles;
mod dirty;
mod figures;
mod memory;
mod pods;
mod spans;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use coracle_integration::node;

use crate::figures::Report;

/// Compares Coracle with containerd 2.4, runc 1.5 and crun.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Pods of each side per comparison.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Containers of each command of the bundle comparison.
    #[arg(long, default_value_t = 60)]
    bundle_rounds: usize,
    /// Only these parts: pods, host, memory, dirty, bundles, spans, attach.
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

/// One part: its name, what it is called in the report, and the measurement on a node of its own.
type Part = (&'static str, fn(&node::Node, &Options, &mut Report));

const PARTS: &[Part] = &[
    ("pods", pods::bridged),
    ("host", pods::on_the_host_network),
    ("memory", memory::of_shims),
    ("dirty", dirty::stop_beside_a_writer),
    ("bundles", bundles::run_true),
    ("spans", spans::of_a_pod),
    ("attach", attach::with_many),
];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options
        .parts
        .iter()
        .find(|part| !PARTS.iter().any(|(name, _)| name == part))
    {
        eprintln!(
            "no part is called {unknown}: there are {:?}",
            PARTS.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        return ExitCode::from(2);
    }
    let mut exceeded = Vec::new();
    for (name, measure) in PARTS {
        if !options.parts.is_empty() && !options.parts.iter().any(|part| part == name) {
            continue;
        }
        let (tell, hear) = mpsc::channel();
        let wanted = options.clone();
        node::run_for(name, Duration::from_secs(1200), move |node| {
            let mut report = Report::default();
            measure(node, &wanted, &mut report);
            let _ = tell.send(report);
        });
        let report = hear.recv().expect("the part's report");
        print!("{report}");
        exceeded.extend(report.exceeded());
    }
    if exceeded.is_empty() {
        println!("every bound holds");
        return ExitCode::SUCCESS;
    }
    println!("over the bound: {}", exceeded.join(", "));
    ExitCode::FAILURE
}
