//! ExecSync of a command that says more than a message may hold: the client gets the beginning, and no error (CRI:
//! "cap the output of this response to 16MB"; CVE-2022-1708). The real crictl takes messages of 16 MiB.

use coracle_integration::crictl::Crictl;
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, programs};

#[test]
fn output_beyond_a_message_is_cut_and_the_command_succeeds() {
    node::run("exec-output", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::host_network_sandbox("loud", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("sleeper", &["sleep", "1000"]));

        let crictl = Crictl::new(node, &daemon.socket());
        let lines = ["/payload", "write-lines", "170000", "100"];
        let said = crictl.run(&[&["exec", "--sync", container.as_str()], lines.as_slice()].concat());
        assert!(
            (15_900_000..=16_000_000).contains(&said.len()),
            "17 MB were said, {} bytes came",
            said.len()
        );
        // A command that fails after it has said too much still says how.
        let failing = [lines.as_slice(), &["--", "exit", "3"]].concat();
        let output = programs::output_of(
            &mut crictl.command(&[&["exec", "--sync", container.as_str()], failing.as_slice()].concat()),
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("exited with 3"), "{error}");

        cri.discard(&pod);
        before.assert_nothing_left(node);
    });
}
