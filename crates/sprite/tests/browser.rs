//! URLs that programs in a sprite want opened, on a real terminal, with a browser that writes down what it gets.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use harness::terminal::{Terminal, ended};
use harness::{Conn, Fake, Home, Seen, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Far beyond anything that is waited for: only so that a test that fails ends.
const LONG: Duration = Duration::from_secs(30);

/// A server whose sessions say again what they hear; `u` in it wants `url` opened, `q` ends it. Its ports greet.
async fn wanting(url: String) -> Fake {
    Fake::start(move |seen: Seen, conn: Conn| {
        let url = url.clone();
        async move {
            if seen.path().ends_with("/proxy") {
                let mut socket = conn.websocket(&seen).await;
                let yes = r#"{"status":"connected","target":"127.0.0.1:7","half_close":true}"#;
                // Behind the first message, which says where to.
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        let _ = socket.send(Message::text(yes)).await;
                        let _ = socket.send(Message::binary(b"welcome back".to_vec())).await;
                        let _ = socket.send(Message::text(r#"{"type":"eof"}"#)).await;
                    }
                }
                return None;
            }
            let joined = seen.path().ends_with("/77");
            let mut socket = hello(&seen, conn, joined || seen.query("tty") == ["true"]).await;
            let _ = socket.send(Message::binary(b"ready\r\n".to_vec())).await;
            while let Some(Ok(message)) = socket.next().await {
                let Message::Binary(bytes) = message else {
                    continue;
                };
                match &bytes[..] {
                    keys if keys.contains(&b'u') => {
                        let told = serde_json::json!({"type": "open_url", "url": url});
                        for _ in keys.iter().filter(|key| **key == b'u') {
                            let _ = socket.send(Message::text(told.to_string())).await;
                        }
                    }
                    b"q" => {
                        let _ = socket
                            .send(Message::text(r#"{"type":"exit","exit_code":0}"#))
                            .await;
                        let _ = socket.close(None).await;
                    }
                    other => {
                        let said = format!("heard {}\r\n", String::from_utf8_lossy(other));
                        let _ = socket.send(Message::binary(said.into_bytes())).await;
                    }
                }
            }
            None
        }
    })
    .await
}

/// A home whose browser writes down what it is called with.
fn home(fake: &Fake) -> (Home, PathBuf) {
    let mut home = Home::of(fake);
    let (browser, opened) = (home.path("browser"), home.path("opened"));
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\n", opened.display());
    std::fs::write(&browser, script).expect("a file");
    std::fs::set_permissions(&browser, PermissionsExt::from_mode(0o755)).expect("ours");
    home.set("BROWSER", browser.display().to_string());
    (home, opened)
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn shown(terminal: &Terminal) -> String {
    String::from_utf8_lossy(&terminal.screen).into_owned()
}

/// Answers the question that is on the screen. What is typed in its first half second is for the sprite.
fn answer(terminal: &mut Terminal, key: &[u8]) {
    terminal.wait_for("[y/N] ");
    std::thread::sleep(Duration::from_millis(700));
    terminal.type_in(key);
}

/// A port of this computer that nobody has at the moment.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_and_the_login_comes_back() {
    let port = free_port().await;
    let url =
        format!("https://id.example/a?x=$(id)&redirect_uri=http%3A%2F%2Flocalhost%3A{port}%2Fback");
    let fake = wanting(url.clone()).await;
    let (home, opened) = home(&fake);
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["console", "-s", "a"]);
    terminal.wait_for("ready");
    assert_eq!(fake.seen()[0].query("browser"), ["true"]);
    terminal.type_in(b"u");
    terminal.wait_for("a wants to open in your browser");
    // Shown in full, nothing opened yet, and the port is nobody's.
    terminal.wait_for(&url);
    assert!(!opened.exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    answer(&mut terminal, b"y");
    wait_for("the browser", || {
        std::fs::read_to_string(&opened).is_ok_and(|said| said == format!("{url}\n"))
    });
    let mut back = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("forwarded");
    back.write_all(b"GET /back").await.expect("it takes bytes");
    let mut said = [0; 12];
    let read = tokio::time::timeout(LONG, back.read_exact(&mut said)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(&said, b"welcome back");
    terminal.type_in(b"k");
    terminal.wait_for("heard k");
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 0);
    assert!(
        TcpStream::connect(("127.0.0.1", port)).await.is_err(),
        "it ends with the session"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_is_for_the_session_and_what_is_typed_goes_on_to_the_sprite() {
    let fake = wanting("http://a/b".to_owned()).await;
    let (home, opened) = home(&fake);
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["exec", "-s", "a", "--tty", "--", "sh"]);
    terminal.wait_for("ready");
    terminal.type_in(b"u");
    // A person who is typing has not read the question: that y is for the sprite.
    terminal.wait_for("[y/N] ");
    terminal.type_in(b"y");
    answer(&mut terminal, b"n");
    terminal.wait_for("] no");
    terminal.wait_for("heard y");
    std::thread::sleep(Duration::from_millis(2100));
    terminal.type_in(b"u");
    terminal.wait_for("not opened: http://a/b");
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 0);
    assert!(!opened.exists());
    assert_eq!(shown(&terminal).matches("[y/N]").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn always_opens_without_asking_and_not_often_and_never_says_nothing() {
    let fake = wanting("http://a/b".to_owned()).await;
    let (mut home, opened) = home(&fake);
    let other = home.path("other");
    std::fs::rename(home.path("browser"), &other).expect("ours");
    home.set("SPRITE_BROWSER", format!("{} --new %s", other.display()));
    let mut terminal = Terminal::open(24, 80);
    let child = terminal.spawn(&home, &["console", "-s", "a", "--browser", "always"]);
    terminal.wait_for("ready");
    for _ in 0..20 {
        terminal.type_in(b"u");
    }
    terminal.wait_for("opening http://a/b");
    wait_for("the browser", || opened.exists());
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 0);
    let said = std::fs::read_to_string(&opened).expect("written");
    assert_eq!(
        said, "--new\nhttp://a/b\n",
        "one, however often it was asked"
    );

    let seen = fake.seen().len();
    for arguments in [
        &["console", "-s", "a", "--browser", "never"][..],
        &["attach", "77", "-s", "a", "--browser=never"],
    ] {
        let mut terminal = Terminal::open(24, 80);
        let child = terminal.spawn(&home, arguments);
        terminal.wait_for("ready");
        terminal.type_in(b"q");
        ended(child).await;
    }
    let asked = &fake.seen()[seen..];
    assert!(
        asked
            .iter()
            .all(|request| request.query("browser").is_empty())
    );
    // Nor is it without a terminal, where nobody can be asked.
    let child = home.spawn(&["exec", "-s", "a", "--", "x"]);
    wait_for("a request", || fake.seen().len() > seen + asked.len());
    drop(child);
    assert!(fake.seen()[seen + asked.len()].query("browser").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_is_not_there_and_a_port_that_is_taken_are_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let fake = wanting(format!("http://a/?redirect_uri=http://127.0.0.1:{port}")).await;
    let (mut home, _) = home(&fake);
    home.set("BROWSER", "/no/such/browser");
    let mut terminal = Terminal::open(24, 100);
    let child = terminal.spawn(&home, &["console", "-s", "a", "--browser=always"]);
    terminal.wait_for("ready");
    terminal.type_in(b"u");
    terminal.wait_for(&format!(
        "port {port}, to which the page comes back, is not forwarded"
    ));
    terminal.wait_for("/no/such/browser cannot be started");
    terminal.type_in(b"q");
    assert_eq!(ended(child).await, 0);
}
