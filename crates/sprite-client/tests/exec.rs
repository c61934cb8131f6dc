//! Commands over a WebSocket: how they start and how they end.

mod playing;

use std::time::Duration;

use playing::{Fake, binary, closed_by_client, playing, send};
use sprite_client::{Client, ExecError, SessionId};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

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
