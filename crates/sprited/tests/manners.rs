//! How the program behaves toward the person who runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use harness::{Server, ready};
use sprite_client::Client;

fn sprited() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sprited"))
}

/// Runs to its end with that input to nobody.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn whoever_is_not_root_is_told_what_to_type() {
    // Where others may run it: the directory of build results can be anywhere.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("sprited");
    fs::copy(env!("CARGO_BIN_EXE_sprited"), &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&program);
    command.arg("serve").env_clear();
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("sudo sprited serve"), "{stderr}");
    assert!(stderr.lines().count() <= 2, "{stderr}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    for (flags, word) in [
        (&["--listen", "0.0.0.0:0"][..], "--plain-http"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--idle-timeout", "soon"], "idle-timeout"),
        (&["--url-domain", "a b"], "url-domain"),
        (&["--image", "no-such"], "no-such"),
        (&["--config", "/no/such/file"], "/no/such/file"),
        (&["--driver", "none"], "--driver"),
    ] {
        let mut command = sprited();
        command.args(["serve", "--driver", "container"]);
        if flags[0] == "--driver" {
            command = sprited();
            command.arg("serve");
        }
        let (code, _, stderr) = run(command.args(flags).arg("--data-dir").arg(&data));
        assert!(code.is_some_and(|code| code != 0), "{flags:?}: {code:?}");
        assert!(stderr.contains(word), "{flags:?}: {stderr}");
        assert!(!data.join("catalog.db").exists(), "{flags:?}");
    }
}

#[tokio::test]
async fn a_data_directory_is_private_and_has_one_server() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let mode = fs::metadata(server.data_dir()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    let run_dir = format!("/run/sprited/{}", server.instance());
    assert_eq!(fs::metadata(run_dir).unwrap().mode() & 0o077, 0);
    for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["purge"]] {
        let (code, stdout, stderr) = run(sprited()
            .args(words)
            .arg("--data-dir")
            .arg(server.data_dir()));
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{words:?}");
        assert!(stderr.contains("another sprited uses"), "{stderr}");
    }
    // It serves on.
    let sprite = server.sprite("one").await;
    let output = sprite.command("true").output().await.unwrap();
    assert_eq!(output.status.code(), 0);
    server.finish();
}

#[tokio::test]
async fn tokens_are_listed_and_revoked_while_the_server_runs() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let second = server.make_token("other");
    let id = second.split('/').nth(2).unwrap();
    let token = |words: &[&str]| {
        run(sprited()
            .arg("token")
            .args(words)
            .arg("--data-dir")
            .arg(server.data_dir()))
    };
    let client = Client::new(&server.url(), &second).unwrap();
    client.create("theirs").send().await.unwrap();
    let (_, listed, _) = token(&["list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains(second.rsplit('/').next().unwrap()));
    let (_, listed, _) = token(&["list", "--org", "other"]);
    assert!(listed.starts_with(&format!("{id}  other  ")), "{listed}");
    assert_eq!(token(&["revoke", id]).0, Some(0));
    let refused = client.create("late").send().await.unwrap_err();
    assert!(format!("{refused:?}").contains("401"), "{refused:?}");
    assert_eq!(token(&["list", "--org", "other"]).1, "");
    let (code, _, stderr) = token(&["revoke", id]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("sprited token list"), "{stderr}");
    // Nobody else's is touched.
    server.sprite("ours").await;
    server.finish();
}

#[tokio::test]
async fn the_first_start_makes_the_image_and_says_so() {
    if !ready() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (tarball, cache) = (place.path().join("system.tar"), place.path().join("cache"));
    let system = place.path().join("system");
    fs::create_dir_all(system.join("etc")).unwrap();
    let mut passwd = fs::File::create(system.join("etc/passwd")).unwrap();
    writeln!(passwd, "root:x:0:0::/root:/bin/sh").unwrap();
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&tarball)
        .arg("-C")
        .arg(&system)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    let image = format!("tar:{}", tarball.display());
    let flags = ["--image", &image, "--image-cache", cache.to_str().unwrap()];
    let first = Server::start(&flags);
    // Progress goes to stderr; the harness saw the ready line on stdout after it.
    assert!(first.log().contains("write the image"), "{}", first.log());
    first.finish();
    let second = Server::start(&flags);
    assert!(
        !second.log().contains("write the image"),
        "a finished image is shared: {}",
        second.log()
    );
    second.finish();
}
