//! Commands over a WebSocket: their streams, their terminal and their signals.

mod playing;

use std::time::Duration;

use futures_util::StreamExt;
use playing::{binary, closed_by_client, playing, send};
use sprite_client::{ExecError, Kept, SessionId, Signal, Stdio, TtySize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[tokio::test]
async fn a_terminal_is_raw_bytes_and_a_text_exit() {
    let (fake, sprite) = playing(true, |mut socket| async move {
        binary(&mut socket, b"\x01\x03raw").await;
        let resize = socket.next().await.expect("a message").expect("whole");
        assert_eq!(
            resize,
            Message::text(r#"{"type":"resize","cols":100,"rows":30}"#)
        );
        let typed = socket.next().await.expect("a message").expect("whole");
        assert_eq!(typed, Message::binary(b"ls\r".to_vec()));
        let eof = socket.next().await.expect("a message").expect("whole");
        assert_eq!(eof, Message::binary(vec![4]));
        send(
            &mut socket,
            Message::text(r#"{"type":"exit","exit_code":0}"#),
        )
        .await;
        let _ = socket
            .close(Some(CloseFrame {
                code: 1000.into(),
                reason: "".into(),
            }))
            .await;
    })
    .await;
    let mut child = sprite
        .command("bash")
        .tty(24, 80)
        .spawn()
        .await
        .expect("begun");
    assert!(child.stderr.is_none(), "a terminal has one stream");
    let mut stdout = child.stdout.take().expect("piped");
    let mut start = [0; 5];
    stdout.read_exact(&mut start).await.expect("the start");
    assert_eq!(&start, b"\x01\x03raw");
    child
        .controls()
        .resize(TtySize {
            rows: 30,
            cols: 100,
        })
        .await
        .expect("runs");
    let mut stdin = child.stdin.take().expect("a terminal is typed into");
    stdin.write_all(b"ls\r").await.expect("typed");
    stdin.shutdown().await.expect("Ctrl-D");
    assert!(child.wait().await.expect("ended").success());
    let seen = &fake.seen()[0];
    assert_eq!(
        (seen.query("tty"), seen.query("rows"), seen.query("cols")),
        (
            vec!["true".to_owned()],
            vec!["24".to_owned()],
            vec!["80".to_owned()]
        )
    );
    assert_eq!(seen.query("stdin"), ["true"]);
}

/// Behaviour reference §12, stdin is total: the end of input comes once, when it is closed.
#[tokio::test]
async fn input_arrives_in_order_and_ends_once() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        let mut input = Vec::new();
        loop {
            match socket.next().await.expect("a message").expect("whole") {
                Message::Binary(bytes) if bytes[0] == 0 => input.extend_from_slice(&bytes[1..]),
                Message::Binary(bytes) => {
                    assert_eq!(bytes[..], [4]);
                    break;
                }
                _ => {}
            }
        }
        for piece in input.chunks(60_000) {
            binary(&mut socket, &[&[1], piece].concat()).await;
        }
        binary(&mut socket, b"\x03\x00").await;
        loop {
            match socket.next().await {
                Some(Ok(Message::Binary(more))) => panic!("after the end of input came {more:?}"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    })
    .await;
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut child = sprite
        .command("cat")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .expect("begun");
    let mut stdin = child.stdin.take().expect("asked for");
    let mut stdout = child.stdout.take().expect("piped");
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            stdin.write_all(&sent).await?;
            stdin.shutdown().await
        },
        stdout.read_to_end(&mut received)
    );
    written.expect("sent");
    read.expect("received");
    assert!(
        received == sent,
        "{} bytes of {} came back",
        received.len(),
        sent.len()
    );
    assert!(child.wait().await.expect("ended").success());
    let late = stdin.write(b"x").await.expect_err("ended");
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn writing_to_a_command_that_ended_says_so() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x03\x07").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let mut child = sprite
        .command("true")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .expect("begun");
    let mut stdin = child.stdin.take().expect("asked for");
    assert_eq!(child.wait().await.expect("ended").code(), 7);
    child.close().await;
    let error = stdin
        .write_all(&[0; 1 << 20])
        .await
        .expect_err("nobody reads");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (std::io::ErrorKind::BrokenPipe, "the command has ended")
    );
    assert!(matches!(
        child.controls().signal(&Signal::term()).await,
        Err(ExecError::Ended)
    ));
}

#[tokio::test]
async fn letting_go_closes_the_connection_and_not_the_input() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let (_fake, sprite) = playing(false, move |mut socket| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = socket.next().await {
                sender.send(message).await.expect("the test listens");
            }
        }
    })
    .await;
    let child = sprite
        .command("cat")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .expect("begun");
    assert_eq!(child.session().expect("told").id, SessionId(77));
    child.detach().await;
    let first = receiver.recv().await.expect("a message");
    assert!(first.is_close(), "{first:?}");

    // Dropping is letting go as well.
    let child = sprite
        .command("cat")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .expect("begun");
    drop(child);
    let first = receiver.recv().await.expect("a message");
    assert!(first.is_close(), "{first:?}");
}

#[tokio::test]
async fn attaching_learns_from_the_server_whether_there_is_a_terminal() {
    for tty in [false, true] {
        let (fake, sprite) = playing(tty, move |mut socket| async move {
            binary(&mut socket, if tty { b"old" } else { b"\x01old" }).await;
            send(
                &mut socket,
                Message::text(r#"{"type":"exit","exit_code":5}"#),
            )
            .await;
            if !tty {
                binary(&mut socket, b"\x03\x05").await;
            }
            closed_by_client(&mut socket).await;
        })
        .await;
        let child = sprite.attach(SessionId(77)).spawn().await.expect("joined");
        assert_eq!(child.stdin.is_some(), tty);
        let output = child.wait_with_output().await.expect("ended");
        assert_eq!(
            (output.stdout.as_slice(), output.status.code()),
            (&b"old"[..], 5)
        );
        assert_eq!(fake.seen()[0].target, "/v1/sprites/a/exec/77");
    }
}

/// Behaviour reference §11.3: where one was cut off, one goes on.
#[tokio::test]
async fn attaching_asks_for_a_place_and_tells_a_size() {
    let (fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x01rest").await;
        binary(&mut socket, b"\x03\x00").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let attach = sprite.attach(SessionId(77)).stdout_offset(1000);
    let child = attach.stderr_offset(0).size(50, 132).spawn().await;
    let child = child.expect("joined");
    assert_eq!(child.id(), Some(SessionId(77)));
    // A server of before, which tells nothing of offsets.
    assert_eq!(child.session().map(|info| info.kept), Some(Kept::default()));
    let output = child.wait_with_output().await.expect("ended");
    assert_eq!(output.stdout, b"rest");
    let asked = fake.seen().remove(0);
    for (key, value) in [
        ("stdout_offset", "1000"),
        ("stderr_offset", "0"),
        ("rows", "50"),
        ("cols", "132"),
    ] {
        assert_eq!(asked.query(key), [value], "{}", asked.target);
    }
}

/// As with [`std::process::Child`]: asked at any time, and killed without mercy.
#[tokio::test]
async fn a_command_is_killed_and_asked_whether_it_has_ended() {
    let (fake, sprite) = playing(false, |mut socket| async move {
        let signal = socket.next().await.expect("a message").expect("whole");
        assert_eq!(
            signal,
            Message::text(r#"{"type":"signal","signal":"KILL"}"#)
        );
        binary(&mut socket, b"\x03\x89").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let mut child = sprite
        .command("sleep")
        .detachable()
        .spawn()
        .await
        .expect("begun");
    assert_eq!(fake.seen()[0].query("max_run_after_disconnect"), ["0s"]);
    assert_eq!(child.try_wait().expect("it runs"), None);
    child.kill().await.expect("it runs");
    let status = child.wait().await.expect("ended");
    assert_eq!(status.signal(), Some(9));
    assert_eq!(child.try_wait().expect("ended"), Some(status));
}

#[tokio::test]
async fn signals_go_over_the_socket() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        let signal = socket.next().await.expect("a message").expect("whole");
        assert_eq!(signal, Message::text(r#"{"type":"signal","signal":"INT"}"#));
        binary(&mut socket, b"\x03\x82").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let mut child = sprite.command("sleep").spawn().await.expect("begun");
    child.controls().signal(&Signal::int()).await.expect("runs");
    let status = child.wait().await.expect("ended");
    assert_eq!((status.code(), status.signal()), (130, Some(2)));
}

/// A slow reader slows the server down; it costs no memory and no bytes.
#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_server_back() {
    let (progress, mut sent) = tokio::sync::watch::channel(0_usize);
    let (_fake, sprite) = playing(false, move |mut socket| {
        let progress = progress.clone();
        async move {
            let piece = [&[1][..], &vec![b'x'; 64 << 10]].concat();
            for n in 1..=1_000 {
                binary(&mut socket, &piece).await;
                progress.send_replace(n);
            }
            binary(&mut socket, b"\x03\x00").await;
            closed_by_client(&mut socket).await;
        }
    })
    .await;
    let mut child = sprite.command("yes").spawn().await.expect("begun");
    let mut stdout = child.stdout.take().expect("piped");
    // The server stops making progress long before it is done: the buffers in between are full.
    while let Ok(changed) = tokio::time::timeout(Duration::from_millis(300), sent.changed()).await {
        changed.expect("the server runs");
    }
    assert!(
        *sent.borrow() < 500,
        "{} of 1000 pieces went out unread",
        *sent.borrow()
    );
    let mut total = 0;
    while let Some(chunk) = stdout.chunk().await.expect("whole") {
        total += chunk.len();
    }
    assert_eq!(total, 1_000 * (64 << 10));
    assert!(child.wait().await.expect("ended").success());
}

#[tokio::test]
async fn a_command_that_reads_nothing_does_not_stop_its_output() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        // Nothing is read: the client's input backs up.
        for _ in 0..100 {
            binary(&mut socket, &[1; 64 << 10]).await;
        }
        binary(&mut socket, b"\x03\x00").await;
        // Closing with input unread would reset the connection, output and all.
        closed_by_client(&mut socket).await;
    })
    .await;
    let mut child = sprite
        .command("x")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .expect("begun");
    let mut stdin = child.stdin.take().expect("asked for");
    let feeding =
        tokio::spawn(async move { while stdin.write_all(&[0; 1 << 16]).await.is_ok() {} });
    let output = child.wait_with_output().await.expect("ended");
    assert_eq!(output.stdout.len(), 100 * ((64 << 10) - 1));
    feeding.await.expect("the writer was told of the end");
}
