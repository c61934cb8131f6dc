//! The monitor taken over: a hostile program in its place, started by the real driver inside the real jail.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::attack::program;
use crate::harness::{Server, virtual_machines};

/// It reaches nothing of the host. Whoever gives another monitor hears what is wrong with it, and nothing of the
/// attempt is left.
#[tokio::test]
async fn a_hostile_monitor_reaches_nothing_and_is_told_with_its_last_words() {
    if !virtual_machines() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let monitor = directory.path().join("monitor");
    fs::copy(program(), &monitor).unwrap();
    fs::set_permissions(&monitor, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(&["--vmm", monitor.to_str().unwrap()]);
    // Made only: it will never boot.
    let client = server.client();
    client.create("hopeless").send().await.unwrap();
    let sprite = client.sprite("hopeless");
    let failed = sprite.command("true").output().await.unwrap_err();
    let told = failed.to_string();
    assert!(told.contains("the monitor ended"), "{told}");
    let tried = told
        .split("tried ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let tried: usize = tried
        .and_then(|count| count.parse().ok())
        .unwrap_or_default();
    assert!(tried > 30, "{told}");
    assert!(!told.contains("BROKE"), "{told}");
    assert_eq!(server.machines(), Vec::<String>::new());
    server.finish();
}
