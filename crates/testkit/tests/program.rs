//! What a test may rely on when it runs a program of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fleetwide_testkit::{Program, TempDir, eventually};

#[tokio::test]
async fn a_program_can_be_frozen_goes_on_and_dies_with_its_handle_even_frozen() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("output");
    let script = folder.path().join("script");
    fs::write(&script, "while true; do echo tick; sleep 0.01; done").unwrap();
    let args = [script.as_path()];
    let mut program = Program::start(Path::new("/bin/sh"), &args, &output).unwrap();
    let length = || fs::metadata(&output).map_or(0, |meta| meta.len());
    let grows = async || {
        let before = length();
        let more = async || length() > before;
        eventually(Duration::from_secs(5), "the program to run", more).await;
    };
    grows().await;
    program.stop().unwrap();
    assert_eq!(program.exit_status().unwrap(), None);
    program.cont().unwrap();
    grows().await;
    program.stop().unwrap();
    let process = format!("/proc/{}", program.pid());
    assert!(Path::new(&process).exists());
    program.kill();
    assert!(!Path::new(&process).exists());
}
