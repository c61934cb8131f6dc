//! The browser of whoever is attached.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sprite_client::Sprite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Server, ready};

const LONG: Duration = Duration::from_secs(90);

/// A login as programs do it: listens, opens the page, and waits for the browser to come back with a code.
const LOGIN: &str = r#"
use IO::Socket::INET;
my $port = shift;
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
system($ENV{BROWSER}, "https://id.example/a?redirect_uri=http%3A%2F%2Flocalhost%3A$port%2Fback") == 0 or exit 9;
my $c = $s->accept;
my $line = <$c>;
print $c "HTTP/1.0 200 OK\r\n\r\nyou may close this page\n";
close $c;
print "logged in with $1\n" if $line =~ /code=(\w+)/;
"#;

async fn put_login(sprite: &Sprite) {
    sprite
        .fs()
        .write("/home/sprite/login.pl", LOGIN)
        .await
        .unwrap();
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_login_inside_opens_a_page_here_and_its_answer_comes_back() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    // Nobody takes URLs: the command says what to do, and prints the URL.
    let alone = sprite
        .command("sprite-browser")
        .arg("https://a/")
        .output()
        .await
        .unwrap();
    assert_eq!(
        (alone.status.code(), &alone.stdout[..]),
        (1, &b"https://a/\n"[..])
    );
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(said.contains("sprite console s"), "{said}");

    put_login(&sprite).await;
    let login = sprite
        .command("perl")
        .args(["login.pl", "8976"])
        .take_urls();
    let mut child = login.spawn().await.unwrap();
    let mut urls = child.urls.take().unwrap();
    let url = timeout(LONG, urls.next()).await.unwrap().unwrap();
    assert!(url.as_str().starts_with("https://id.example/a?"), "{url}");
    let port = url.callback_port().unwrap();
    assert_eq!(port, 8976);
    let forward = sprite
        .forward(("127.0.0.1", 0), "localhost", port)
        .await
        .unwrap();
    let mut browser = TcpStream::connect(forward.local_addr()).await.unwrap();
    browser
        .write_all(b"GET /back?code=abc HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut page = String::new();
    timeout(LONG, browser.read_to_string(&mut page))
        .await
        .unwrap()
        .unwrap();
    assert!(page.contains("close this page"), "{page}");
    let ended = timeout(LONG, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&ended.stdout[..], b"logged in with abc\n");
    for wrong in ["file:///etc/passwd", "http://a b"] {
        let output = sprite
            .command("sprite-browser")
            .arg(wrong)
            .take_urls()
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), 1, "{wrong}");
    }
    server.finish();
}

/// The command line, where it was built beside the server.
fn command_line() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_sprited")).with_file_name("sprite");
    let there = beside.exists() && Path::new("/usr/bin/script").exists();
    if !there {
        eprintln!("skipped: the command line or script(1) is not there; run cargo build -p sprite");
    }
    there.then_some(beside)
}

/// All of it: a console on a terminal, a login typed there, the question, the browser, and the way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_typed_into_a_console_opens_the_browser_of_its_user() {
    let Some(program) = command_line().filter(|_| ready()) else {
        return;
    };
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    put_login(&sprite).await;
    let home = tempfile::tempdir().unwrap();
    let port = free_port();
    // A browser that goes to the page, which sends it back at once.
    let (browser, opened) = (home.path().join("browser"), home.path().join("opened"));
    let script = format!(
        "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\n\
         printf 'GET /back?code=xyz HTTP/1.0\\r\\n\\r\\n' >&3\n(echo \"$1\"; cat <&3) > {}\n",
        opened.display()
    );
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, PermissionsExt::from_mode(0o755)).unwrap();
    let mut terminal = Command::new("script")
        .args([
            "-q",
            "-e",
            "-c",
            &format!("{} console s", program.display()),
            "/dev/null",
        ])
        .env("HOME", home.path())
        .env("SPRITE_URL", server.url())
        .env("SPRITE_TOKEN", server.token())
        .env("BROWSER", &browser)
        .env("SHELL", "/bin/bash")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let screen = Screen::of(terminal.stdout.take().unwrap());
    screen.wait_for("$ ");
    keys.write_all(format!("perl login.pl {port}\r").as_bytes())
        .unwrap();
    screen.wait_for("[y/N] ");
    screen.wait_for(&format!("localhost%3A{port}%2Fback"));
    // What is typed in the first half second is for the sprite.
    tokio::time::sleep(Duration::from_millis(700)).await;
    keys.write_all(b"y").unwrap();
    screen.wait_for("logged in with xyz");
    keys.write_all(b"exit\r").unwrap();
    drop(keys);
    let status = tokio::task::spawn_blocking(move || terminal.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
    let seen = std::fs::read_to_string(&opened).unwrap();
    assert!(
        seen.starts_with("https://id.example/a?redirect_uri="),
        "{seen}"
    );
    assert!(seen.contains("you may close this page"), "{seen}");
    server.finish();
}

/// What a terminal shows.
struct Screen(std::sync::Mutex<(std::sync::mpsc::Receiver<Vec<u8>>, String)>);

impl Screen {
    fn of(mut output: std::process::ChildStdout) -> Self {
        let (sender, shown) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = std::io::Read::read(&mut output, &mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self(std::sync::Mutex::new((shown, String::new())))
    }

    fn wait_for(&self, text: &str) {
        let (shown, all) = &mut *self.0.lock().unwrap();
        while !all.contains(text) {
            match shown.recv_timeout(LONG) {
                Ok(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} is not on {all:?}"),
            }
        }
    }
}
