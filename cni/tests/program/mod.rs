//! Programs that stand in for plugins.

use std::path::Path;

/// Writes a program. Another process does: a child that another test starts meanwhile would inherit our descriptor, and a
/// file that is open for writing cannot be executed.
pub(crate) fn program(path: &Path, text: &str) {
    let mut install = std::process::Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut install.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}
