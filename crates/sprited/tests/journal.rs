//! What sessions wrote, in real machines: kept on the sprite's disk, read from any byte, drawn for any terminal.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{Attach, Child, ChildOutput, SessionId, Sprite};
use tokio::io::AsyncReadExt;

/// 12 MiB of stdout and 4 of stderr: more than memory keeps, less than the disk.
const OUT: u64 = 1_700_000;
const ERR: u64 = 600_000;

fn numbers(to: u64) -> Vec<u8> {
    (1..=to)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

/// Starts `script` as a session that nobody reads.
async fn leave(sprite: &Sprite, script: &str) -> SessionId {
    let command = sprite.command("sh").args(["-c", script]).detachable();
    let child = command.spawn().await.unwrap();
    let id = child.id().unwrap();
    child.detach().await;
    id
}

async fn until_ended(sprite: &Sprite, id: SessionId) {
    eventually(Duration::from_secs(90), async || {
        match sprite.sessions().await.unwrap().iter().find(|s| s.id == id) {
            None => Ok(()),
            Some(session) => Err(format!("{:?}", session.kept)),
        }
    })
    .await;
}

/// The next `most` bytes of a stream, or all that there are.
async fn take(output: &mut ChildOutput, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    output
        .take(most as u64)
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    bytes
}

async fn join(attach: Attach) -> (Child, ChildOutput, ChildOutput) {
    let mut child = attach.spawn().await.unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    (child, stdout, stderr)
}

/// Behaviour reference §11.3, §12 (replay cursor): while it runs and after its end, in pieces that are cut anywhere.
#[tokio::test]
async fn readings_laid_together_are_one() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("replay").await;
    text(&sprite, "mkfifo /tmp/gate").await;
    let script = format!("seq 1 {OUT}; seq 1 {ERR} >&2; read x < /tmp/gate; echo last; exit 9");
    let id = leave(&sprite, &script).await;
    let (out, err) = (numbers(OUT), numbers(ERR));
    let (mut got_out, mut got_err) = (Vec::new(), Vec::new());
    // Cuts in memory, on the disk, within a line.
    for (more_out, more_err) in [(1, 0), (3_000_001, 17), (77_777, 2_500_000), (8_000_000, 1)] {
        let attach = sprite.attach(id);
        let attach = attach
            .stdout_offset(got_out.len() as u64)
            .stderr_offset(got_err.len() as u64);
        let (child, mut stdout, mut stderr) = join(attach).await;
        // Who has enough of one stream drops it: unread, it would hold the other.
        let (o, e) = tokio::join!(
            async move { take(&mut stdout, more_out).await },
            async move { take(&mut stderr, more_err).await },
        );
        got_out.extend_from_slice(&o);
        got_err.extend_from_slice(&e);
        child.detach().await;
    }
    assert!(out.starts_with(&got_out) && err.starts_with(&got_err));
    text(&sprite, "echo go > /tmp/gate").await;
    until_ended(&sprite, id).await;
    let attach = sprite.attach(id);
    let attach = attach
        .stdout_offset(got_out.len() as u64)
        .stderr_offset(got_err.len() as u64);
    let rest = attach
        .spawn()
        .await
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    assert_eq!(rest.status.code(), 9);
    got_out.extend_from_slice(&rest.stdout);
    got_err.extend_from_slice(&rest.stderr);
    let want = [out.as_slice(), b"last\n"].concat();
    assert!(got_out == want, "stdout in pieces is not stdout");
    assert!(got_err == err, "stderr in pieces is not stderr");
    // And whole, from its first byte.
    let child = sprite.attach(id).spawn().await.unwrap();
    let kept = child.session().unwrap().kept;
    assert_eq!(
        (kept.stdout_kept_from, kept.stdout_total),
        (0, want.len() as u64)
    );
    assert_eq!(
        (kept.stderr_kept_from, kept.stderr_total),
        (0, err.len() as u64)
    );
    let whole = child.wait_with_output().await.unwrap();
    assert!(whole.stdout == want && whole.stderr == err && whole.status.code() == 9);
    server.finish();
}

/// What is kept is bounded, and its start and its total are told.
#[tokio::test]
async fn long_output_loses_its_oldest_part_and_says_so() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("long").await;
    let command = sprite.command("seq").args(["1", "6000000"]);
    let child = command.spawn().await.unwrap();
    let id = child.id().unwrap();
    let whole = numbers(6_000_000);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.stdout == whole, "who reads along gets all");
    let child = sprite.attach(id).stdout_offset(5).spawn().await.unwrap();
    let info = child.session().unwrap().clone();
    assert_eq!(info.kept.stdout_total, whole.len() as u64);
    assert_eq!(info.stdout_offset, info.kept.stdout_kept_from);
    let kept = info.kept.stdout_total - info.kept.stdout_kept_from;
    assert!((16 << 20..19 << 20).contains(&kept), "{kept} bytes kept");
    let output = child.wait_with_output().await.unwrap();
    let from = usize::try_from(info.stdout_offset).unwrap();
    assert!(
        output.stdout == whole[from..],
        "what is kept is not the newest"
    );
    // Beyond the end there is nothing, and the exit.
    let behind = sprite
        .attach(id)
        .stdout_offset(u64::MAX)
        .spawn()
        .await
        .unwrap();
    let behind = behind.wait_with_output().await.unwrap();
    assert_eq!((behind.stdout.len(), behind.status.code()), (0, 0));
    server.finish();
}

/// Each client at its own pace: who does not read stops neither the command nor the others.
#[tokio::test]
async fn a_client_that_does_not_read_is_not_waited_for_by_the_others() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("paces").await;
    text(&sprite, "mkfifo /tmp/gate").await;
    let id = leave(&sprite, &format!("read x < /tmp/gate; exec seq 1 {OUT}")).await;
    let (idle, mut unread, _stderr) = join(sprite.attach(id)).await;
    let fast = sprite.attach(id).spawn().await.unwrap();
    text(&sprite, "echo go > /tmp/gate").await;
    let output = fast.wait_with_output().await.unwrap();
    assert!(output.stdout == numbers(OUT) && output.status.success());
    let late = take(&mut unread, usize::MAX).await;
    assert!(late == numbers(OUT), "{} bytes", late.len());
    drop(idle);
    server.finish();
}

/// A disk without room costs history, no session and no byte of what is read.
#[tokio::test]
async fn a_full_disk_costs_history_and_nothing_else() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let client = server.client();
    client.create("full").storage_gb(3).send().await.unwrap();
    let sprite = client.sprite("full");
    // Nearly all of it at once, the rest in small pieces.
    let fill = "sudo fallocate -l $(($(df --output=avail -B1 / | tail -1) - 4000000)) /filler; \
                sudo dd if=/dev/zero of=/rest bs=4k 2>/dev/null; \
                sudo dd if=/dev/zero of=/last bs=4k 2>/dev/null; df --output=avail -B1 / | tail -1";
    let free: u64 = text(&sprite, fill).await.parse().unwrap();
    assert!(free < 1_000_000, "{free} bytes are free");
    let output = sprite.command("seq").args(["1", "1700000"]).output().await;
    assert!(
        output.unwrap().stdout == numbers(OUT),
        "a reader loses nothing"
    );
    let id = leave(&sprite, &format!("exec seq 1 {OUT}")).await;
    until_ended(&sprite, id).await;
    let child = sprite.attach(id).spawn().await.unwrap();
    let info = child.session().unwrap().clone();
    assert!(info.kept.stdout_kept_from > 0, "{:?}", info.kept);
    let from = usize::try_from(info.stdout_offset).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.stdout == numbers(OUT)[from..] && output.status.success());
    server.finish();
}

/// Journals take room on the sprite's disk, have no name there, and go with their sessions' machine.
#[tokio::test]
async fn journals_cannot_be_found_from_inside() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("hidden").await;
    text(&sprite, "mkfifo /tmp/gate").await;
    let id = leave(&sprite, &format!("seq 1 {OUT}; read x < /tmp/gate")).await;
    eventually(Duration::from_secs(60), async || {
        let sessions = sprite.sessions().await.unwrap();
        match sessions[0].kept.stdout_total {
            all if all == numbers(OUT).len() as u64 => Ok(()),
            some => Err(format!("{some} bytes")),
        }
    })
    .await;
    let files = "sudo find / -xdev -newer /tmp/gate -type f -size +512k 2>/dev/null | wc -l";
    assert_eq!(text(&sprite, files).await, "0");
    let open = "sudo sh -c 'ls -l /proc/[0-9]*/fd 2>/dev/null' | grep -c deleted || true";
    assert_eq!(text(&sprite, open).await, "0");
    if driver() == "container" {
        // From outside the agent is seen to hold one, without a name.
        let directory = format!("/proc/{}/fd", server.agent_pid());
        let links = std::fs::read_dir(directory).unwrap().flatten();
        let targets = links.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let unnamed = targets.filter(|target| target.to_string_lossy().ends_with("(deleted)"));
        assert_eq!(unnamed.count(), 1);
    }
    text(&sprite, "echo go > /tmp/gate").await;
    until_ended(&sprite, id).await;
    server.finish();
}

/// Who joins a terminal sees what it shows, at the width of the own one.
#[tokio::test]
async fn a_screen_is_drawn_for_a_terminal_of_another_size() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("screens").await;
    let line = "0123456789".repeat(6);
    let script = format!(
        "printf '\\033[2J\\033[H\\033[32m{line}\\033[0m\\r\\nnext\\r\\n'; read x; stty size; exit 4"
    );
    let command = sprite.command("sh").args(["-c", &script]).tty(24, 80);
    let mut first = command.spawn().await.unwrap();
    let id = first.id().unwrap();
    let mut stdout = first.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("next") {
        let chunk = stdout.chunk().await.unwrap().expect("output");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    first.detach().await;
    let mut again = sprite.attach(id).size(30, 40).spawn().await.unwrap();
    let info = again.session().unwrap().clone();
    assert!(info.tty && info.screen_bytes > 0, "{info:?}");
    assert_eq!(info.stdout_offset, info.kept.stdout_total);
    let mut stdout = again.stdout.take().unwrap();
    let drawn = take(&mut stdout, usize::try_from(info.screen_bytes).unwrap()).await;
    let mut terminal = avt::Terminal::new(40, 30).unwrap();
    terminal.feed(String::from_utf8(drawn).unwrap().as_str());
    let lines: Vec<String> = terminal
        .screen()
        .visible_lines()
        .map(|l| l.text().trim_end().to_owned())
        .collect();
    assert_eq!(lines[..3], [&line[..40], &line[40..], "next"], "{lines:?}");
    let mut stdin = again.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"go\r")
        .await
        .unwrap();
    let rest = String::from_utf8(take(&mut stdout, usize::MAX).await).unwrap();
    assert!(rest.contains("30 40"), "{rest:?}");
    assert_eq!(again.wait().await.unwrap().code(), 4);
    // With an offset, and after the end, it is the output itself.
    let raw = sprite.attach(id).stdout_offset(0).spawn().await.unwrap();
    assert_eq!(raw.session().unwrap().screen_bytes, 0);
    let raw = raw.wait_with_output().await.unwrap();
    assert!(String::from_utf8_lossy(&raw.stdout).contains(&line));
    assert_eq!(raw.status.code(), 4);
    server.finish();
}
