//! The console on a real terminal.

mod harness;

use futures_util::{SinkExt, StreamExt};
use harness::terminal::{Terminal, ended};
use harness::{Fake, Home, Seen, Socket, hello};
use rustix::termios::{LocalModes, tcgetattr};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Shows what is typed and told, until `q` ends it with status 7.
async fn mirror(mut socket: Socket) {
    let shown = |text: String| Message::binary(text.into_bytes());
    socket
        .send(shown("\u{1b}[?1049hready\r\n".into()))
        .await
        .expect("the client reads");
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) if bytes[..] == b"q"[..] => {
                socket
                    .send(Message::text(r#"{"type":"exit","exit_code":7}"#))
                    .await
                    .expect("the client reads");
                let close = CloseFrame {
                    code: 4007.into(),
                    reason: "".into(),
                };
                let _ = socket.close(Some(close)).await;
            }
            Message::Binary(bytes) => {
                socket
                    .send(shown(format!(
                        "typed {:?}\r\n",
                        String::from_utf8_lossy(&bytes)
                    )))
                    .await
                    .expect("read");
            }
            Message::Text(text) => {
                socket
                    .send(shown(format!("told {text}\r\n")))
                    .await
                    .expect("the client reads");
            }
            _ => {}
        }
    }
}

async fn mirroring() -> Fake {
    Fake::start(|seen: Seen, conn| async move {
        if seen.method == "POST" {
            return conn.reply(201, r#"{"name":"made"}"#).await;
        }
        mirror(hello(&seen, conn, true).await).await;
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_sizes_and_the_exit_pass_and_the_terminal_is_given_back() {
    let fake = mirroring().await;
    let home = Home::of(&fake);
    let mut terminal = Terminal::open(30, 100);
    let child = terminal.spawn(&home, &["console", "-s", "a"]);
    terminal.wait_for("ready");
    assert!(terminal.is_raw());
    let request = fake.seen()[0].clone();
    assert_eq!(
        (request.query("rows"), request.query("cols")),
        (vec!["30".into()], vec!["100".into()])
    );
    let env = request.query("env");
    assert!(
        env.contains(&"TERM=xterm-256color".into()) && env.contains(&"COLORTERM=truecolor".into()),
        "{env:?}"
    );
    // The shell of here, if it is there.
    assert_eq!(
        request.query("cmd"),
        [
            "sh",
            "-c",
            "exec \"$(command -v zsh || command -v bash)\" -l"
        ]
    );

    // Ctrl-C is a key like others.
    terminal.type_in(b"\x03");
    terminal.wait_for(r#"typed "\u{3}""#);
    terminal.resize(50, 132);
    terminal.wait_for(r#"told {"type":"resize","cols":132,"rows":50}"#);
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 7);
    assert!(!terminal.is_raw());
    terminal.wait_for("\u{1b}[?1049l");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_backslash_lets_go_and_tells_how_to_come_back() {
    let fake = mirroring().await;
    let home = Home::of(&fake);
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["exec", "-s", "a", "--tty", "--", "vi"]);
    terminal.wait_for("ready");
    terminal.type_in(b"\x1c");
    assert_eq!(ended(child).await, 0);
    assert!(!terminal.is_raw());
    terminal.wait_for("sprite attach -s a 77");
    terminal.wait_for("\u{1b}[?1049l");
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_a_session_tells_it_the_size_of_this_terminal() {
    let fake = mirroring().await;
    let home = Home::of(&fake);
    let mut terminal = Terminal::open(33, 99);
    let child = terminal.spawn(&home, &["attach", "77", "-s", "a"]);
    terminal.wait_for(r#"told {"type":"resize","cols":99,"rows":33}"#);
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_when_the_program_is_ended() {
    let fake = mirroring().await;
    let home = Home::of(&fake);
    use rustix::process::Signal;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut terminal = Terminal::open(24, 80);
        let child = terminal.spawn(&home, &["console", "-s", "a"]);
        terminal.wait_for("ready");
        // setsid became the program itself, or waits for it as its leader: the terminal knows who is in front.
        let group = rustix::termios::tcgetpgrp(&terminal.keys).expect("a controlling terminal");
        rustix::process::kill_process_group(group, signal).expect("sent");
        assert_eq!(ended(child).await, code);
        assert!(!terminal.is_raw(), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_gives_the_terminal_back_and_says_so() {
    let fake = Fake::start(|seen, conn| async move {
        let mut socket = hello(&seen, conn, true).await;
        socket
            .send(Message::binary(b"ready".to_vec()))
            .await
            .expect("the client reads");
        // The first key breaks the connection.
        let _ = socket.next().await;
        None
    })
    .await;
    let home = Home::of(&fake);
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["console", "-s", "a"]);
    terminal.wait_for("ready");
    terminal.type_in(b"x");
    assert_eq!(ended(child).await, 1);
    assert!(!terminal.is_raw());
    terminal.wait_for("the connection was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_on_a_terminal_opens_a_console_and_destroying_asks() {
    let fake = mirroring().await;
    let home = Home::of(&fake);
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["create", "made"]);
    terminal.wait_for("ready");
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 7);

    let seen = fake.seen().len();
    let child = terminal.spawn(&home, &["destroy", "made"]);
    terminal.wait_for("Destroy made and everything on its disk? [y/N]");
    terminal.type_in(b"n\n");
    assert_eq!(ended(child).await, 1);
    assert_eq!(fake.seen().len(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_and_not_shown() {
    let fake = Fake::start(|_, conn| async move {
        conn.reply(200, r#"{"organization":{"slug":"personal"}}"#)
            .await
    })
    .await;
    let home = Home::empty();
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["login", &fake.url()]);
    terminal.wait_for("Token: ");
    terminal.type_in(b"personal/a/b/secret\n");
    assert_eq!(ended(child).await, 0);
    terminal.wait_for("logged in to");
    assert!(!String::from_utf8_lossy(&terminal.screen).contains("secret"));
    assert_eq!(
        fake.seen()[0].header("authorization"),
        Some("Bearer personal/a/b/secret")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_interrupted_shows_what_is_typed_again() {
    let home = Home::empty();
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["login"]);
    terminal.wait_for("Token: ");
    let echoes = |terminal: &Terminal| {
        let settings = tcgetattr(&terminal.inner).expect("a terminal");
        settings.local_modes.contains(LocalModes::ECHO)
    };
    assert!(!echoes(&terminal));
    terminal.type_in(b"\x03");
    assert_eq!(ended(child).await, 1);
    assert!(echoes(&terminal));
}
