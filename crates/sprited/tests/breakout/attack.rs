//! Builds the hostile program, brings it into sprites, and reads its reports.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use sprite_client::{Child, Output, Sprite, Stdio};
use tokio::io::AsyncWriteExt;

use crate::harness::patiently;

/// Where the program lies in a sprite.
pub(crate) const ATTACKER: &str = "/usr/local/bin/attacker";

/// As whom an attack is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    User,
    Root,
}

/// The program's file on the host, built unless the one that is there is as new as its sources.
pub(crate) fn program() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/breakout/attacker");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacker");
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    // Tests are processes of their own, and run side by side.
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let program = directory.join("attacker");
    let built = fs::metadata(&program).and_then(|file| file.modified()).ok();
    let newest = fs::read_dir(&sources)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().modified().unwrap())
        .max();
    if built.is_some() && built > newest {
        return program;
    }
    let fresh = directory.join("attacker.new");
    let rustc = Command::new("rustc")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&fresh)
        .arg(sources.join("main.rs"))
        .output()
        .expect("rustc can be started");
    assert!(
        rustc.status.success(),
        "{}",
        String::from_utf8_lossy(&rustc.stderr)
    );
    fs::rename(&fresh, &program).unwrap();
    program
}

/// Where tests are carried to, there may be no compiler: `cargo xtask kvm-test` runs this one before it leaves.
#[test]
fn builds_the_hostile_program() {
    assert!(program().is_file());
}

/// Brings the program into a sprite.
pub(crate) async fn bring(sprite: &Sprite) {
    let script = format!("sudo -n tee {ATTACKER} >/dev/null && sudo -n chmod 755 {ATTACKER}");
    let mut child = sprite
        .command("sh")
        .args(["-c", &script])
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(&fs::read(program()).unwrap())
        .await
        .unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn command(sprite: &Sprite, by: As, args: &[&str]) -> sprite_client::Command {
    let command = match by {
        As::User => sprite.command(ATTACKER),
        As::Root => sprite.command("sudo").args(["-n", ATTACKER]),
    };
    command.args(args.iter().copied())
}

/// Starts an attack that goes on until it is ended.
pub(crate) async fn begin(sprite: &Sprite, by: As, args: &[&str]) -> Child {
    command(sprite, by, args).spawn().await.unwrap()
}

/// Makes an attack, and fails if any attempt worked.
pub(crate) async fn withstand(sprite: &Sprite, by: As, args: &[&str]) -> usize {
    let output = command(sprite, by, args).output().await.unwrap();
    judge(&format!("{args:?} {by:?}"), &output)
}

/// Fails if any attempt of an attack worked; returns how many there were.
pub(crate) fn judge(attack: &str, output: &Output) -> usize {
    let said = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{attack}: {}\n{said}\n{stderr}",
        output.status
    );
    judge_report(attack, &said)
}

/// As [`judge`], of the report alone.
pub(crate) fn judge_report(attack: &str, said: &str) -> usize {
    let broke: Vec<&str> = said.lines().filter(|l| l.starts_with("BROKE")).collect();
    assert!(broke.is_empty(), "{attack}:\n{}", broke.join("\n"));
    let refused = said.lines().filter(|l| l.starts_with("refused")).count();
    let done = said.lines().last().and_then(|l| l.strip_prefix("done "));
    assert_eq!(
        done.and_then(|n| n.parse().ok()),
        Some(refused),
        "{attack} was cut off:\n{said}"
    );
    refused
}

/// What a shell in the sprite prints.
pub(crate) async fn shell(sprite: &Sprite, script: &str) -> String {
    let output = patiently(sprite, script).await;
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {}: {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a line of a child's output that begins so, and returns it.
pub(crate) async fn line(child: &mut Child, start: &str) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut said = Vec::new();
    loop {
        let chunk = stdout.chunk().await.unwrap();
        said.extend_from_slice(&chunk.unwrap_or_else(|| {
            panic!("ended before {start:?}: {}", String::from_utf8_lossy(&said))
        }));
        let text = String::from_utf8_lossy(&said);
        if let Some(line) = text.lines().find(|line| line.starts_with(start)) {
            return line.to_owned();
        }
    }
}
