//! `sprited doctor`, as people and programs run it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Server, ready};
use serde_json::Value;

/// What is always looked at.
const ALWAYS: [&str; 14] = [
    "user",
    "data directory",
    "kvm",
    "namespaces",
    "driver",
    "pool",
    "base image",
    "tools",
    "address",
    "names",
    "network",
    "open files",
    "processes",
    "many machines",
];

/// The report of a doctor that ran to its end, after what every report must keep.
fn report(command: &mut Command) -> Value {
    let output = command.arg("--json").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}{stderr}")
    });
    let mut worst = "ok";
    for check in report["checks"].as_array().unwrap() {
        let verdict = check["verdict"].as_str().unwrap();
        assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
        assert_eq!(check["remedy"].is_string(), verdict != "ok", "{check}");
        worst = match (worst, verdict) {
            ("problem", _) | (_, "problem") => "problem",
            ("warning", _) | (_, "warning") => "warning",
            _ => "ok",
        };
    }
    assert_eq!(report["verdict"], worst);
    let code = i32::from(worst == "problem");
    assert_eq!(output.status.code(), Some(code), "{report}");
    for name in ALWAYS {
        find(&report, name);
    }
    report
}

/// The first check of that name.
fn find<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("nothing is said of {name}: {report}"))
}

fn doctor(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["doctor", "--listen", "127.0.0.1:0", "--config", "/dev/null"])
        .arg("--data-dir")
        .arg(home.join("data"))
        .arg("--run-dir")
        .arg(home.join("run"));
    command
}

fn sprited() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sprited"))
}

#[test]
fn a_host_without_a_server_is_looked_at_and_left_as_it_was() {
    if !ready() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let report = report(&mut doctor(sprited(), home.path()));
    assert_eq!(find(&report, "user")["verdict"], "ok");
    assert!(
        find(&report, "data directory")["found"]
            .as_str()
            .unwrap()
            .contains("not there yet")
    );
    assert!(!home.path().join("data").exists(), "nothing is made");
    let traces = harness::traces("doctor", &home.path().join("data"));
    assert_eq!(traces, Vec::<String>::new());
}

#[test]
fn without_root_what_was_not_seen_is_told() {
    // Where others may run it: the directory of build results can be anywhere.
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("sprited");
    fs::copy(sprited(), &program).unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    fs::write(home.path().join("data/instance"), "abcdef\n").unwrap();
    for (path, mode) in [(".", 0o755), ("sprited", 0o755), ("data", 0o700)] {
        let path = home.path().join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = doctor(&program, home.path());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let report = report(&mut command);
    for name in ["user", "network"] {
        let check = find(&report, name);
        assert_eq!(check["verdict"], "warning", "{check}");
        assert!(
            check["remedy"].as_str().unwrap().contains("sudo"),
            "{check}"
        );
    }
}

#[test]
fn people_read_lines_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    // A limit that only this process has.
    let line = "ulimit -n 256; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(sprited());
    command.args(doctor(sprited(), home.path()).get_args());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("open files"));
    let at = at.unwrap_or_else(|| panic!("{text}"));
    assert!(
        lines[at].starts_with("warning") && lines[at].contains("256"),
        "{text}"
    );
    assert!(
        lines[at + 1].contains("→") && lines[at + 1].contains("ulimit -Hn"),
        "{text}"
    );
}

#[test]
fn a_host_without_a_way_out_is_a_problem() {
    if !ready() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(sprited());
    command.args(doctor(sprited(), home.path()).get_args());
    let report = report(&mut command);
    assert_eq!(report["verdict"], "problem");
    let check = find(&report, "network");
    assert_eq!(check["verdict"], "problem", "{check}");
    assert!(
        check["found"].as_str().unwrap().contains("default route"),
        "{check}"
    );
}

#[test]
fn settings_that_this_host_cannot_fulfil_are_problems() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let report = report(
        doctor(sprited(), home.path())
            .args(["--listen", &address])
            .args(["--image", "tar:/no/such/file"]),
    );
    for name in ["base image", "address"] {
        let mut checks = report["checks"].as_array().unwrap().iter();
        let problem = checks.find(|check| check["name"] == name && check["verdict"] == "problem");
        assert!(problem.is_some(), "{name}: {report}");
    }
}

#[test]
fn what_virtual_machines_need_is_looked_at_where_they_are_chosen() {
    if !ready() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let microvm = |monitor: &[&str]| {
        let mut command = doctor(sprited(), home.path());
        report(command.args(["--driver", "microvm"]).args(monitor))
    };
    let built_in = microvm(&[]);
    assert_eq!(find(&built_in, "monitor")["verdict"], "ok");
    assert_eq!(find(&built_in, "taps")["verdict"], "ok", "{built_in}");
    let traces = harness::traces("doctor", &home.path().join("data"));
    assert_eq!(traces, Vec::<String>::new());
    // A shell is no monitor, and needs libraries that a jail has not.
    let shell = microvm(&["--vmm", "/bin/sh"]);
    let monitor = find(&shell, "monitor");
    assert_eq!(monitor["verdict"], "problem", "{monitor}");
    assert!(
        monitor["remedy"].as_str().unwrap().contains("static"),
        "{monitor}"
    );
}

#[tokio::test]
async fn a_running_server_is_not_disturbed() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("beside").await;
    let report = report(
        Command::new(sprited())
            .args(["doctor", "--config", "/dev/null", "--image", "minimal"])
            .arg("--data-dir")
            .arg(server.data_dir()),
    );
    let found = |name: &str| find(&report, name)["found"].as_str().unwrap().to_owned();
    assert!(found("data directory").contains("a server uses it now"));
    assert!(found("address").contains("held by the server"));
    assert!(found("base image").contains("made"));
    // A computer with little space left is warned of it.
    let pool = find(&report, "pool");
    assert_ne!(pool["verdict"], "problem", "{report}");
    assert!(
        pool["found"].as_str().unwrap().contains("mounted"),
        "{pool}"
    );
    let output = sprite.command("true").output().await.unwrap();
    assert_eq!(output.status.code(), 0);
    server.finish();
}
