//! Commands over a WebSocket and over HTTP.

mod fake;

use std::future::Future;
use std::time::Duration;

use fake::{Conn, Fake, Seen};
use futures_util::{SinkExt, StreamExt};
use sprite_client::{
    Client, ExecError, PostBody, PostFrame, SessionId, Signal, Sprite, Stdio, TtySize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

type Socket = WebSocketStream<TcpStream>;

/// A server whose every exec stream is played by `script`, after `session_info`.
async fn playing<F, T>(tty: bool, script: F) -> (Fake, Sprite)
where
    F: Fn(Socket) -> T + Send + Sync + Clone + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let fake = Fake::start(move |seen: Seen, conn: Conn| {
        let script = script.clone();
        async move {
            if !seen.is_websocket() {
                return conn.reply(200, "{}").await;
            }
            let mut socket = conn.websocket(&seen).await;
            let hello = format!(
                r#"{{"type":"session_info","session_id":"77","command":"x","created":1,"cols":0,"rows":0,"is_owner":true,"tty":{tty}}}"#
            );
            send(&mut socket, Message::text(hello)).await;
            script(socket).await;
            None
        }
    })
    .await;
    let sprite = Client::new(&fake.url(), "t")
        .expect("a usable address")
        .sprite("a");
    (fake, sprite)
}

async fn send(socket: &mut Socket, message: Message) {
    socket.send(message).await.expect("the client reads");
}

async fn binary(socket: &mut Socket, bytes: &[u8]) {
    send(socket, Message::binary(bytes.to_vec())).await;
}

/// Waits for the client's Close; fails when the connection breaks instead.
async fn closed_by_client(socket: &mut Socket) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(_))) => return,
            Some(Ok(_)) => {}
            other => panic!("no clean close: {other:?}"),
        }
    }
}

#[tokio::test]
async fn output_is_collected_and_the_exit_is_the_servers() {
    let (fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x01out").await;
        binary(&mut socket, b"\x02err").await;
        send(&mut socket, Message::text(r#"{"type":"keepalive"}"#)).await;
        send(&mut socket, Message::Ping("x".into())).await;
        binary(&mut socket, b"\x01put").await;
        send(
            &mut socket,
            Message::text(r#"{"type":"exit","exit_code":42,"code":42}"#),
        )
        .await;
        binary(&mut socket, b"\x03\x2a").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let command = sprite
        .command("sh")
        .args(["-c", "x y"])
        .env("K", "a=b")
        .current_dir("/tmp");
    let output = command
        .max_run_after_disconnect(Duration::from_secs(5))
        .output()
        .await
        .expect("ran");
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"output"[..], &b"err"[..])
    );
    assert_eq!(output.status.code(), 42);
    let seen = &fake.seen()[0];
    assert_eq!(
        seen.target,
        "/v1/sprites/a/exec?cmd=sh&cmd=-c&cmd=x%20y&path=sh&env=K%3Da%3Db&dir=%2Ftmp&stdin=false\
         &max_run_after_disconnect=5s"
    );
}

/// Behaviour reference §12, exit truth: a stream without an exit is never success.
#[tokio::test]
async fn a_stream_that_ends_without_an_exit_is_lost() {
    enum Ending {
        Close(u16),
        Drop,
        EmptyExit,
    }
    for (tty, ending) in [
        (false, Ending::Close(1000)),
        (false, Ending::Close(1011)),
        (false, Ending::Drop),
        (false, Ending::EmptyExit),
        (true, Ending::Close(1000)),
        (true, Ending::Drop),
    ] {
        let ending = std::sync::Arc::new(ending);
        let (_fake, sprite) = playing(tty, move |mut socket| {
            let ending = std::sync::Arc::clone(&ending);
            async move {
                binary(&mut socket, b"\x01part").await;
                match *ending {
                    Ending::Close(code) => {
                        let frame = CloseFrame {
                            code: code.into(),
                            reason: "machine ended".into(),
                        };
                        let _ = socket.close(Some(frame)).await;
                    }
                    Ending::Drop => {}
                    Ending::EmptyExit => {
                        binary(&mut socket, b"\x03").await;
                        let _ = socket.close(None).await;
                    }
                }
            }
        })
        .await;
        let command = sprite.command("x");
        let command = if tty { command.tty(24, 80) } else { command };
        match command.output().await {
            Err(ExecError::Lost { session, .. }) => assert_eq!(session, Some(SessionId(77))),
            other => panic!("{other:?}"),
        }
    }
}

/// A reader of output alone must learn, too, that it was cut off.
#[tokio::test]
async fn output_that_was_cut_off_does_not_look_whole() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x01part").await;
    })
    .await;
    let mut child = sprite.command("x").spawn().await.expect("begun");
    let mut bytes = Vec::new();
    let error = child
        .stdout
        .take()
        .expect("piped")
        .read_to_end(&mut bytes)
        .await
        .expect_err("cut off");
    assert_eq!(
        (bytes.as_slice(), error.kind()),
        (&b"part"[..], std::io::ErrorKind::ConnectionAborted)
    );
}

#[tokio::test]
async fn a_text_exit_alone_is_an_exit_once_the_server_closes() {
    let (_fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x01x").await;
        send(
            &mut socket,
            Message::text(r#"{"type":"exit","exit_code":3}"#),
        )
        .await;
        let _ = socket.close(None).await;
    })
    .await;
    let output = sprite.command("x").output().await.expect("ran");
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (&b"x"[..], 3)
    );
}

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

#[tokio::test]
async fn a_refused_start_tells_the_servers_reason() {
    let fake = Fake::start(|seen, conn| async move {
        if seen.path().contains("plain") {
            return conn.reply(200, "no WebSocket here").await;
        }
        conn.reply(404, r#"{"error":"not_found","message":"no such sprite"}"#)
            .await
    })
    .await;
    let client = Client::new(&fake.url(), "t").expect("a usable address");
    let error = client
        .sprite("a")
        .command("x")
        .output()
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, ExecError::Start(start) if start.is_not_found()),
        "{error:?}"
    );
    client
        .sprite("plain")
        .command("x")
        .output()
        .await
        .expect_err("not upgraded");
}

#[tokio::test]
async fn a_long_command_line_is_sent_and_one_that_cannot_be_is_refused_before_it_is() {
    let (fake, sprite) = playing(false, |mut socket| async move {
        binary(&mut socket, b"\x03\x00").await;
        closed_by_client(&mut socket).await;
    })
    .await;
    let many = (0..10_000).map(|n| (format!("VARIABLE_{n}"), "value"));
    let status = sprite
        .command("env")
        .envs(many)
        .status()
        .await
        .expect("ran");
    assert!(status.success());
    assert_eq!(fake.seen()[0].query("env").len(), 10_000);

    let error = sprite
        .command("x")
        .arg("y".repeat(5 << 20))
        .status()
        .await
        .expect_err("too long");
    assert!(
        error.to_string().contains("at most 4194304 can be sent"),
        "{error}"
    );
    let error = sprite
        .command("env")
        .env("A=B", "x")
        .status()
        .await
        .expect_err("not a name");
    assert!(
        error.to_string().contains("cannot name a variable"),
        "{error}"
    );
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_sprite_that_starts_is_waited_for() {
    let asked = std::sync::atomic::AtomicBool::new(false);
    let fake = Fake::start(move |seen, conn| {
        let first = !asked.swap(true, std::sync::atomic::Ordering::SeqCst);
        async move {
            if first {
                let starting = r#"{"error":"sprite_starting","retry_after_seconds":0}"#;
                return conn.reply(503, starting).await;
            }
            let mut socket = conn.websocket(&seen).await;
            binary(&mut socket, b"\x03\x00").await;
            closed_by_client(&mut socket).await;
            None
        }
    })
    .await;
    let sprite = Client::new(&fake.url(), "t")
        .expect("a usable address")
        .sprite("a");
    assert!(
        sprite
            .command("true")
            .status()
            .await
            .expect("in the end")
            .success()
    );
}

/// Behaviour reference §1.4.6: one chunk is one frame, wherever the network cuts.
#[tokio::test]
async fn http_exec_keeps_frames_apart_however_they_arrive() {
    let fake = Fake::start(|seen, mut conn| async move {
        assert_eq!(seen.query("stdin"), ["true"]);
        conn.stream.set_nodelay(true).expect("a TCP stream");
        conn.chunked().await;
        let mut answer = Vec::new();
        for frame in [&[1][..], &seen.body]
            .concat()
            .chunks(16 << 10)
            .collect::<Vec<_>>()
        {
            // Every piece begins with the byte of a stream id, as any byte of output may.
            let frame = [&[1], frame].concat();
            answer.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
            answer.extend_from_slice(&frame);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"2\r\n\x02e\r\n2\r\n\x03\x09\r\n0\r\n\r\n");
        for piece in answer.chunks(1_237) {
            conn.raw(piece).await;
        }
        None
    })
    .await;
    let sprite = Client::new(&fake.url(), "t")
        .expect("a usable address")
        .sprite("a");
    let input: Vec<u8> = (0..100_000_u32).map(|n| (n % 4) as u8).collect();
    let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
        Box::new(std::io::Cursor::new(input.clone()));
    let mut exec = sprite
        .command("cat")
        .post(PostBody::Reader(reader))
        .await
        .expect("begun");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = loop {
        match exec.next().await.expect("whole") {
            PostFrame::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            PostFrame::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            PostFrame::Exit(status) => break status,
        }
    };
    assert!(stdout[1..] == input[..], "{} bytes came back", stdout.len());
    assert_eq!((stderr.as_slice(), status.code()), (&b"e"[..], 9));
    assert!(matches!(exec.next().await, Err(ExecError::Ended)));
}

#[tokio::test]
async fn http_exec_without_an_exit_is_lost_and_refusals_are_read() {
    let fake = Fake::start(|seen, mut conn| async move {
        match seen.path() {
            "/v1/sprites/gone/exec" => conn.reply(404, r#"{"error":"not_found"}"#).await,
            "/v1/sprites/joined/exec" => conn.reply(200, "\u{1}x\u{3}\u{0}").await,
            "/v1/sprites/ended/exec" => {
                conn.chunked().await;
                conn.chunk(b"\x01part").await;
                conn.raw(b"0\r\n\r\n").await;
                None
            }
            _ => {
                conn.chunked().await;
                conn.raw(b"5\r\n\x01pa").await;
                None
            }
        }
    })
    .await;
    let client = Client::new(&fake.url(), "t").expect("a usable address");
    let post = |name: &str| {
        let command = client.sprite(name).command("x");
        async move { command.post(PostBody::Bytes("in".into())).await }
    };
    let gone = post("gone").await.expect_err("refused");
    assert!(
        matches!(&gone, ExecError::Start(start) if start.is_not_found()),
        "{gone:?}"
    );
    post("joined")
        .await
        .expect_err("the frames cannot be told apart");
    let mut ended = post("ended").await.expect("begun");
    assert_eq!(
        ended.next().await.expect("a frame"),
        PostFrame::Stdout("part".into())
    );
    assert!(matches!(ended.next().await, Err(ExecError::Lost { .. })));
    let mut cut = post("cut").await.expect("begun");
    assert!(matches!(cut.next().await, Err(ExecError::Lost { .. })));
}
