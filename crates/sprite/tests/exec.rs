//! Commands in a sprite, without a terminal.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use futures_util::SinkExt;
use harness::{Fake, Home, hello, nothing_else, running};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn streams_arguments_and_exit_codes_pass_as_they_are() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let ran = home
        .run(&[
            "exec",
            "-s",
            "a",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 42",
        ])
        .await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (42, "out\n", "err\n")
    );
    // Options of the command are not ours, with and without `--`.
    let odd = home
        .run(&[
            "x", "-s", "a", "printf", "%s|", "-s", "a b", "$HOME", "", "--tty",
        ])
        .await;
    assert_eq!(odd.stdout, "-s|a b|$HOME||--tty|", "{odd:?}");
    let env = home
        .run(&[
            "exec",
            "-s",
            "a",
            "--env",
            "A=1,B=x,y",
            "--dir",
            "/tmp",
            "--",
            "sh",
            "-c",
            "echo $A $B $PWD",
        ])
        .await;
    assert_eq!(env.stdout, "1 x,y /tmp\n", "{env:?}");
    let killed = home
        .run(&["exec", "-s", "a", "--", "sh", "-c", "kill -9 $$"])
        .await;
    assert_eq!(killed.code, 137);
    let missing = home
        .run(&["exec", "-s", "a", "--", "no such command"])
        .await;
    assert_eq!(missing.code, 127);
    assert!(missing.stderr.contains("hint: "), "{missing:?}");
}

#[tokio::test]
async fn input_is_passed_on_and_so_is_its_end() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let input: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    let ran = home
        .run_with(&["exec", "-s", "a", "--", "cat"], &input)
        .await;
    assert_eq!(ran.code, 0);
    assert!(
        ran.stdout.as_bytes() == input,
        "{} of {} bytes",
        ran.stdout.len(),
        input.len()
    );

    for stdin in ["/dev/null", "closed"] {
        let mut command = std::process::Command::new("sh");
        let redirect = if stdin == "closed" {
            "<&-"
        } else {
            "</dev/null"
        };
        let line = format!("exec \"$1\" exec -s a -- sh -c 'cat; echo end' {redirect}");
        command.args(["-c", &line, "sh", env!("CARGO_BIN_EXE_sprite")]);
        let mut command = tokio::process::Command::from(command);
        home.prepare(&mut command);
        let output = command.output().await.expect("ran");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "end\n",
            "{stdin}: {output:?}"
        );
    }
}

#[tokio::test]
async fn a_large_output_arrives_whole() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&[
        "exec",
        "-s",
        "a",
        "--",
        "head",
        "-c",
        "50000000",
        "/dev/zero",
    ]);
    drop(child.stdin.take());
    let mut stdout = child.stdout.take().expect("piped");
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stdout.read(&mut buffer).await.expect("a pipe") {
            0 => break,
            len => total += len,
        }
    }
    assert_eq!(total, 50_000_000);
    assert!(child.wait().await.expect("it ends").success());
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_of_its_own() {
    let fake = Fake::start(|seen, conn| async move {
        let mut socket = hello(&seen, conn, false).await;
        socket
            .send(Message::binary(b"\x01part\n".to_vec()))
            .await
            .expect("the client reads");
        None
    })
    .await;
    let ran = Home::of(&fake).run(&["exec", "-s", "a", "--", "x"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "part\n"));
    assert!(
        ran.stderr
            .contains("the connection was lost before the command ended"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("sprite attach -s a 77"), "{ran:?}");
}

#[tokio::test]
async fn ctrl_c_goes_to_the_command() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = home.spawn(&["exec", "-s", "a", "--", "sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(
        lines.next_line().await.expect("a pipe").as_deref(),
        Some("ready")
    );
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid"));
    rustix::process::kill_process(pid.expect("not 0"), rustix::process::Signal::INT).expect("sent");
    assert_eq!(
        lines.next_line().await.expect("a pipe").as_deref(),
        Some("caught")
    );
    assert_eq!(child.wait().await.expect("it ends").code(), Some(9));
}

#[tokio::test]
async fn when_nobody_reads_the_output_the_command_is_told() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["exec", "-s", "a", "--", "yes"]);
    let mut stdout = child.stdout.take().expect("piped");
    let mut start = [0; 4];
    stdout.read_exact(&mut start).await.expect("output");
    drop(stdout);
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .expect("it ends");
    assert_eq!(ended.expect("it ended").code(), Some(141));
}

#[tokio::test]
async fn files_are_copied_whole_whatever_their_names() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let there = home.path("there");
    fs::create_dir(&there).expect("a directory");
    let name = "a 'quoted' $(name)\";rm -rf .txt";
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(home.work().join(name), &content).expect("written");
    fs::set_permissions(home.work().join(name), fs::Permissions::from_mode(0o751)).expect("set");
    let there_text = there.display().to_string();
    let into_dir = format!("{name}:{there_text}");
    let as_file = format!("{name}:{there_text}/new/$(x) -f");
    let ran = home
        .run(&[
            "exec", "-s", "a", "--file", &into_dir, "--file", &as_file, "--", "true",
        ])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for path in [there.join(name), there.join("new/$(x) -f")] {
        assert!(
            fs::read(&path).expect("it is there") == content,
            "{}",
            path.display()
        );
        assert_eq!(
            fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777,
            0o751
        );
    }
    assert_eq!(
        fs::read_dir(there.join("new"))
            .expect("a directory")
            .count(),
        1,
        "nothing half-made is left"
    );

    let failed = home
        .run(&[
            "exec",
            "-s",
            "a",
            "--file",
            &format!("{name}:/proc/nowhere/x"),
            "--",
            "echo",
            "ran",
        ])
        .await;
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{failed:?}");
    let missing = home
        .run(&[
            "exec",
            "-s",
            "a",
            "--file",
            "missing:/tmp/x",
            "--",
            "echo",
            "ran",
        ])
        .await;
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    let directory = home
        .run(&[
            "exec",
            "-s",
            "a",
            "--file",
            "/tmp:/tmp/x",
            "--",
            "echo",
            "ran",
        ])
        .await;
    assert_eq!(directory.code, 2, "{directory:?}");
}

#[tokio::test]
async fn over_http_the_streams_are_the_same() {
    let fake = Fake::start(|seen, mut conn| async move {
        assert_eq!(
            (seen.method.as_str(), seen.query("cmd")),
            ("POST", vec!["cat".to_owned()])
        );
        conn.chunked().await;
        conn.chunk(&[&[1], seen.body.as_slice()].concat()).await;
        conn.chunk(b"\x02warning").await;
        conn.chunk(b"\x03\x05").await;
        conn.raw(b"0\r\n\r\n").await;
        None
    })
    .await;
    let ran = Home::of(&fake)
        .run_with(&["exec", "-s", "a", "--http-post", "--", "cat"], b"input")
        .await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (5, "input", "warning")
    );
    let tty = Home::of(&fake)
        .run(&["exec", "-s", "a", "--http-post", "--tty", "--", "cat"])
        .await;
    assert_eq!(tty.code, 2);
}

#[tokio::test]
async fn attaching_shows_what_was_and_does_not_close_the_sessions_input() {
    let fake = Fake::start(|seen, conn| async move {
        if !seen.path().ends_with("/77") {
            return conn.reply(404, "session not found: 78").await;
        }
        let mut socket = hello(&seen, conn, false).await;
        socket
            .send(Message::binary(b"\x01old".to_vec()))
            .await
            .expect("the client reads");
        socket
            .send(Message::text(r#"{"type":"exit","exit_code":6}"#))
            .await
            .expect("the client reads");
        socket
            .send(Message::binary(b"\x03\x06".to_vec()))
            .await
            .expect("the client reads");
        let first = futures_util::StreamExt::next(&mut socket).await;
        assert!(matches!(first, Some(Ok(Message::Close(_)))), "{first:?}");
        None
    })
    .await;
    let home = Home::of(&fake);
    let ran = home.run(&["attach", "77", "-s", "a"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (6, "old"), "{ran:?}");
    let unknown = home.run(&["sessions", "attach", "78", "-s", "a"]).await;
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("session not found: 78"),
        "{unknown:?}"
    );
    assert!(
        unknown.stderr.contains("sprite sessions list"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_terminal_without_one_here_ends_with_the_input() {
    let fake = Fake::start(|seen, conn| async move {
        assert_eq!(
            (seen.query("rows"), seen.query("cols")),
            (vec!["24".into()], vec!["80".into()])
        );
        let mut socket = hello(&seen, conn, true).await;
        let mut typed = Vec::new();
        while typed.last() != Some(&4) {
            if let Some(Ok(Message::Binary(bytes))) =
                futures_util::StreamExt::next(&mut socket).await
            {
                typed.extend_from_slice(&bytes);
            }
        }
        assert_eq!(typed, b"ls\n\x04");
        socket
            .send(Message::binary(b"listing\r\n".to_vec()))
            .await
            .expect("the client reads");
        socket
            .send(Message::text(r#"{"type":"exit","exit_code":0}"#))
            .await
            .expect("the client reads");
        let _ = socket.close(None).await;
        None
    })
    .await;
    let ran = Home::of(&fake)
        .run_with(&["exec", "-s", "a", "--tty", "--", "bash"], b"ls\n")
        .await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "listing\r\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn output_that_cannot_be_written_is_told() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let mut command = home.command(&["exec", "-s", "a", "--", "echo", "x"]);
    command
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("standard output"),
        "{output:?}"
    );
}

#[tokio::test]
async fn input_may_end_long_after_the_command() {
    let fake = running(nothing_else).await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["exec", "-s", "a", "--", "true"]);
    let mut stdin = child.stdin.take().expect("piped");
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .expect("it does not wait");
    assert!(ended.expect("it ended").success());
    let _ = stdin.write_all(b"late").await;
}

/// What a local command would get from its pipe reaches the one in the sprite.
#[tokio::test]
async fn the_command_is_told_that_nobody_reads() {
    let (teller, mut told) = tokio::sync::mpsc::channel(8);
    let fake = Fake::start(move |seen, conn| {
        let teller = teller.clone();
        async move {
            let socket = hello(&seen, conn, false).await;
            let (mut sink, mut stream) = futures_util::StreamExt::split(socket);
            let output =
                async { while sink.send(Message::binary(vec![1; 1 << 15])).await.is_ok() {} };
            let input = async {
                while let Some(Ok(message)) = futures_util::StreamExt::next(&mut stream).await {
                    if let Message::Text(text) = message {
                        teller
                            .send(text.to_string())
                            .await
                            .expect("the test listens");
                    }
                }
            };
            futures_util::future::join(output, input).await;
            None
        }
    })
    .await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["exec", "-s", "a", "--", "yes"]);
    drop(child.stdout.take());
    let first = tokio::time::timeout(Duration::from_secs(20), told.recv())
        .await
        .expect("it is told");
    assert_eq!(
        first.as_deref(),
        Some(r#"{"type":"signal","signal":"PIPE"}"#)
    );
}
