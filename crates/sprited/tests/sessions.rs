//! Sessions in real machines: what a client is told is what happened, whole and in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready};
use sprite_client::{Output, Signal, Sprite, Stdio};
use tokio::io::AsyncWriteExt;

async fn sh(sprite: &Sprite, script: &str) -> Output {
    sprite
        .command("sh")
        .args(["-c", script])
        .output()
        .await
        .unwrap()
}

/// The server's own processes: what it must not grow with a client that does not read.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Bytes that the only long session's command has written so far, from the kernel's own count of it.
async fn written(sprite: &Sprite) -> u64 {
    let output = sh(sprite, "grep wchar /proc/$(pgrep -x tr)/io").await;
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().trim_start_matches("wchar: ").parse().unwrap()
}

#[tokio::test]
async fn exit_codes_streams_variables_and_directories_are_true() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("truth").await;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        assert_eq!(sh(&sprite, script).await.status.code(), code, "{script}");
    }
    let output = sh(&sprite, "echo out; echo err >&2").await;
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let missing = sprite.command("no-such-program").output().await.unwrap();
    assert_eq!(missing.status.code(), 127);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program"));
    let refused = sprite.command("/etc/passwd").output().await.unwrap();
    assert_eq!(refused.status.code(), 126);
    let here = sprite
        .command("sh")
        .args(["-c", "pwd; echo $A$HOME$USER"])
        .env("A", "b")
        .current_dir("/tmp");
    assert_eq!(
        here.output().await.unwrap().stdout,
        b"/tmp\nb/home/spritesprite\n"
    );
    assert!(
        sprite
            .command("true")
            .current_dir("/no/such/place")
            .output()
            .await
            .is_err()
    );
    assert_eq!(sh(&sprite, "hostname").await.stdout, b"truth\n");
    assert_eq!(sh(&sprite, "id -u; sudo id -u").await.stdout, b"1000\n0\n");
    server.finish();
}

/// Reference §1.4.4 rule 9: the relay is there before the process.
#[tokio::test]
async fn a_command_of_a_millisecond_loses_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("fast").await;
    for i in 0..200 {
        let output = sprite
            .command("echo")
            .arg(i.to_string())
            .output()
            .await
            .unwrap();
        assert_eq!(output.stdout, format!("{i}\n").as_bytes());
    }
    // Emulated, each of them takes a second, and the last one's client waits for all.
    let at_once = match driver().as_str() {
        "microvm" => 20,
        _ => 50,
    };
    let all = (0..at_once).map(|i| {
        let command = sprite
            .command("sh")
            .args(["-c", &format!("echo {i}; exit {i}")]);
        async move { command.output().await.unwrap() }
    });
    for (i, output) in futures_util::future::join_all(all)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(output.stdout, format!("{i}\n").as_bytes());
        assert_eq!(output.status.code(), i32::try_from(i).unwrap());
    }
    server.finish();
}

#[tokio::test]
async fn stdin_is_total_and_binary_output_is_whole() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("bytes").await;
    let sent: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut child = sprite
        .command("cat")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = tokio::spawn({
        let sent = sent.clone();
        async move {
            stdin.write_all(&sent).await.unwrap();
            stdin.shutdown().await.unwrap();
        }
    });
    let output = child.wait_with_output().await.unwrap();
    feed.await.unwrap();
    assert!(output.stdout == sent, "what came back is not what was sent");
    // Without stdin a reader sees its end at once.
    assert_eq!(
        sprite.command("cat").output().await.unwrap().status.code(),
        0
    );
    server.finish();
}

#[tokio::test]
async fn ten_thousand_variables_arrive() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("variables").await;
    let variables = (0..10_000).map(|i| (format!("VARIABLE_{i}"), format!("value {i}")));
    let output = sprite
        .command("sh")
        .args(["-c", "env | grep -c ^VARIABLE_"])
        .envs(variables)
        .output()
        .await
        .unwrap();
    assert_eq!(output.stdout, b"10000\n");
    server.finish();
}

/// Back-pressure, never lost output, and memory that stays.
#[tokio::test]
async fn a_reader_that_stops_holds_the_command_and_loses_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("slow").await;
    let script = "head -c 200000000 /dev/zero | tr '\\0' x; echo end";
    let mut child = sprite
        .command("sh")
        .args(["-c", script])
        .stdout(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let before = resident_mib(server.pid());
    let first = stdout.chunk().await.unwrap().unwrap().len();
    // The command stands still when every buffer on the way is full; what the server holds is bounded.
    let mut last = 0;
    eventually(Duration::from_secs(20), async || {
        let now = written(&sprite).await;
        let before = std::mem::replace(&mut last, now);
        if now == before {
            Ok(())
        } else {
            Err(format!("{now} bytes written, still growing"))
        }
    })
    .await;
    assert!(
        last < 100_000_000,
        "{last} bytes were taken for a reader that does not read"
    );
    let held = resident_mib(server.pid());
    assert!(
        held < before + 40,
        "the server grew from {before} to {held} MiB"
    );
    let mut seen = first;
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        seen += chunk.len();
    }
    assert_eq!(seen, 200_000_000 + 4);
    assert_eq!(child.wait().await.unwrap().code(), 0);
    server.finish();
}

#[tokio::test]
async fn terminals_have_sizes_and_signals_reach_the_group() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("terminal").await;
    let script = "test -t 0 && stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut child = sprite
        .command("sh")
        .args(["-c", script])
        .tty(33, 99)
        .spawn()
        .await
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        seen.push_str(&String::from_utf8_lossy(
            &stdout.chunk().await.unwrap().expect("output"),
        ));
    }
    assert!(seen.contains("33 99"), "{seen:?}");
    child
        .controls()
        .resize(sprite_client::TtySize {
            rows: 44,
            cols: 111,
        })
        .await
        .unwrap();
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains("44 111"), "{seen:?}");
    assert_eq!(child.wait().await.unwrap().code(), 5);
    let mut child = sprite
        .command("sh")
        .args(["-c", "sleep 1000 & wait"])
        .spawn()
        .await
        .unwrap();
    child.controls().signal(&Signal::term()).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), 143);
    eventually(Duration::from_secs(5), async || {
        let left = sh(&sprite, "pgrep -c sleep || true").await.stdout;
        if left == b"0\n" {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&left).into_owned())
        }
    })
    .await;
    server.finish();
}

/// Reference §12: spawn detached, lose the client, list, rejoin by id, get the true exit, also after the end.
#[tokio::test]
async fn sessions_outlive_their_clients_and_end_with_the_true_exit() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("detached").await;
    let command = sprite
        .command("sh")
        .args(["-c", "echo first; read x < /tmp/gate; echo second; exit 9"]);
    assert_eq!(sh(&sprite, "mkfifo /tmp/gate").await.status.code(), 0);
    let mut child = command
        .max_run_after_disconnect(Duration::from_secs(600))
        .spawn()
        .await
        .unwrap();
    let id = child.session().unwrap().id;
    assert_eq!(
        child
            .stdout
            .take()
            .unwrap()
            .chunk()
            .await
            .unwrap()
            .unwrap()
            .as_ref(),
        b"first\n"
    );
    child.detach().await;
    let listed = sprite.sessions().await.unwrap();
    assert_eq!(
        listed.iter().map(|s| s.id.to_string()).collect::<Vec<_>>(),
        [id.to_string()]
    );
    let rejoined = sprite.attach(id).spawn().await.unwrap();
    assert_eq!(sh(&sprite, "echo go > /tmp/gate").await.status.code(), 0);
    for output in [
        rejoined.wait_with_output().await.unwrap(),
        sprite
            .attach(id)
            .spawn()
            .await
            .unwrap()
            .wait_with_output()
            .await
            .unwrap(),
    ] {
        assert_eq!(output.stdout, b"first\nsecond\n");
        assert_eq!(output.status.code(), 9);
    }
    assert!(
        sprite.sessions().await.unwrap().is_empty(),
        "sessions that ended are not listed"
    );
    assert!(
        sprite
            .attach("999999".parse().unwrap())
            .spawn()
            .await
            .is_err()
    );
    server.finish();
}

/// Reference §1.4.1: a session without a terminal runs on only as long as it may.
#[tokio::test]
async fn a_session_that_nobody_wants_ends_after_its_time() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("orphan").await;
    let command = sprite
        .command("sleep")
        .arg("1000")
        .max_run_after_disconnect(Duration::from_secs(1));
    command.spawn().await.unwrap().detach().await;
    eventually(Duration::from_secs(20), async || {
        match sprite.sessions().await.unwrap().len() {
            0 => Ok(()),
            n => Err(format!("{n} sessions")),
        }
    })
    .await;
    server.finish();
}

#[tokio::test]
async fn sizes_are_what_was_asked_for() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let client = server.client();
    client
        .create("small")
        .cpus(1)
        .memory_mib(256)
        .storage_gb(3)
        .send()
        .await
        .unwrap();
    let sprite = client.sprite("small");
    server.boots(&sprite).await;
    let size = sh(&sprite, "df --output=size -B1G / | tail -1")
        .await
        .stdout;
    let gb: u32 = String::from_utf8(size).unwrap().trim().parse().unwrap();
    assert!((2..=3).contains(&gb), "{gb} GB");
    // More memory than it has ends the process that wants it, and nothing else.
    // Piece by piece: a kernel of one's own refuses at once what is more than all of it.
    let greedy = "python3 -c 'x = [bytearray(1 << 20) for _ in range(600)]'; echo $?";
    assert_eq!(sh(&sprite, greedy).await.stdout, b"137\n");
    assert_eq!(sh(&sprite, "echo alive").await.stdout, b"alive\n");
    server.finish();
}

/// What is remembered of sessions costs the agent no descriptor, and input that nobody reads no time.
#[tokio::test]
async fn sessions_that_ended_cost_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("frugal").await;
    assert_eq!(sh(&sprite, "true").await.status.code(), 0);
    let agent = server.agent_pid();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{agent}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors();
    for round in 0..40 {
        let command = sprite.command("sh").args(["-c", "exit 3"]);
        let command = if round % 2 == 0 {
            command.tty(24, 80)
        } else {
            command
        };
        assert_eq!(command.output().await.unwrap().status.code(), 3);
    }
    let mut child = sprite
        .command("sleep")
        .arg("0.2")
        .tty(24, 80)
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    // The terminal's echo is not wanted.
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // More than a terminal holds; the command reads nothing of it and ends.
    let typed = tokio::spawn(async move { stdin.write_all(&[b'x'; 1_000_000]).await });
    assert_eq!(child.wait().await.unwrap().code(), 0);
    // Whether all of it was taken does not matter.
    typed.abort();
    eventually(Duration::from_secs(10), async || match descriptors() {
        now if now <= before + 2 => Ok(()),
        now => Err(format!("{now} descriptors, {before} before")),
    })
    .await;
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{agent}/stat")).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // What the sessions' end left to do is done some time: then the agent, or the machine around it, has nothing to do.
    eventually(Duration::from_secs(30), async || {
        let before = ticks();
        tokio::time::sleep(Duration::from_secs(1)).await;
        match ticks() - before {
            0..=5 => Ok(()),
            used => Err(format!("{used} ticks in a second with nothing to do")),
        }
    })
    .await;
    server.finish();
}
