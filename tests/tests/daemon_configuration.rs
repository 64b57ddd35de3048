//! `coracled config`, as a person meets it.

use coracle_tests::program::{self, Said};
use std::process::Command;

/// What a person begins with is a file that the daemon takes, and a slip in it is found before the daemon is started.
#[test]
fn a_configuration_is_printed_and_looked_at() {
    let coracled = |args: &[&str]| Said::by(Command::new(program::path("coracled")).args(args));
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let default = coracled(&["config", "default"]).ok();
    std::fs::write(file.path(), &default).unwrap();
    assert_eq!(
        coracled(&["config", "check", path]).ok(),
        format!("{path}: good\n")
    );
    for (line, named) in [
        ("rot = \"/a\"", &["line 2", "unknown field `rot`"][..]),
        ("stats_period_s = \"often\"", &["line 2", "invalid type"]),
        ("root = \"relative\"", &["root relative", "absolute"]),
        ("root = ", &["line 2"]),
    ] {
        std::fs::write(file.path(), format!("# ours\n{line}\n")).unwrap();
        let error = coracled(&["config", "check", path]).refused(1);
        for named in named {
            assert!(
                error.contains(named) && error.contains("coracled: "),
                "{line}: {error}"
            );
        }
    }
    assert!(
        coracled(&["config", "check", "/nowhere"])
            .refused(1)
            .contains("/nowhere")
    );
}
