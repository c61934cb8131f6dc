//! A part of the official SDKs' suites against the driver that the other tests are run with: what the whole of them
//! tries on the driver `container` (`cargo xtask conformance`) is tried here where every test takes its time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::{Server, ready};
use tokio::process::Command;

/// Suites that between them start commands, rejoin sessions, handle files, reach ports and set policies.
const SUITES: &str = "exec,sessions,files,ports,policies,checkpoints";

/// What either SDK may take for them on an emulated computer.
const WITHIN: Duration = Duration::from_secs(30 * 60);

/// Where `cargo xtask` installs the SDKs. Source: crates/xtask/src/conformance.rs.
fn sdks() -> Option<PathBuf> {
    let sdks = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdks");
    let there = sdks.join("installed").exists() && sdks.join("js/suite/run.mjs").exists();
    if !there {
        eprintln!("skipped: the SDKs are not installed; cargo xtask conformance installs them");
    }
    there.then_some(sdks)
}

async fn run(server: &mut Server, mut program: Command) {
    program
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SPRITES_TEST_URL", server.url())
        .env("SPRITES_TEST_TOKEN", server.token())
        .env("SPRITES_TEST_OTHER_TOKEN", server.make_token("others"))
        .env("SPRITES_TEST_SUITES", SUITES)
        .env("SPRITES_TEST_WAKE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(WITHIN, program.output()).await;
    let ended = ended.expect("the suites end in time").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.contains(" passed, 0 failed"));
    assert!(!said.contains("\n0 passed"), "a suite was renamed");
}

#[tokio::test]
#[ignore = "needs the SDKs: cargo xtask kvm-test -- conformance"]
async fn the_javascript_sdk_works() {
    if !ready() {
        return;
    }
    let Some(sdks) = sdks() else { return };
    let mut server = Server::start(&[]);
    let mut node = Command::new(sdks.join("venv/bin/node"));
    node.args(["--preserve-symlinks", "--preserve-symlinks-main"])
        .arg(sdks.join("js/suite/run.mjs"));
    run(&mut server, node).await;
    server.finish();
}

#[tokio::test]
#[ignore = "needs the SDKs: cargo xtask kvm-test -- conformance"]
async fn the_python_sdk_works() {
    if !ready() {
        return;
    }
    let Some(sdks) = sdks() else { return };
    let mut server = Server::start(&[]);
    let mut python = Command::new(sdks.join("venv/bin/python"));
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/py/run.py");
    python.arg(suite);
    run(&mut server, python).await;
    server.finish();
}
