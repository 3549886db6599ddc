//! The workspace's own rules, among the ordinary tests: whoever breaks one sees it at once.

use std::process::Command;

#[test]
fn the_workspace_keeps_its_own_rules() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("tidy")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("the command was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
