//! Runs the real program in a home of its own against a server of the tests' own.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../../sprite-client/tests/fake/mod.rs"]
mod fake;
pub mod terminal;

use std::path::PathBuf;
use std::process::Stdio;

pub use fake::{Conn, Fake, Seen};
use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub type Socket = WebSocketStream<TcpStream>;

pub const TOKEN: &str = "personal/orgidx/tokenidx/secret-value";

/// A home, a directory to work in, and what the environment says.
pub struct Home {
    root: TempDir,
    env: Vec<(&'static str, String)>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    /// A home without any login.
    pub fn empty() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join("work")).expect("a directory");
        Self {
            root,
            env: Vec::new(),
        }
    }

    /// A home that is logged in to a server by its environment.
    pub fn of(fake: &Fake) -> Self {
        let mut home = Self::empty();
        home.set("SPRITE_URL", fake.url());
        home.set("SPRITE_TOKEN", TOKEN);
        home
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.env.retain(|(name, _)| *name != key);
        self.env.push((key, value.into()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    pub fn logins(&self) -> serde_json::Value {
        let text = std::fs::read(self.path(".sprites/sprites.json")).expect("logins");
        serde_json::from_slice(&text).expect("JSON")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sprite"));
        self.prepare(&mut command);
        command.args(args);
        command
    }

    /// Gives a command this home's surroundings.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", self.root.path())
            .env("PATH", std::env::var("PATH").expect("a PATH"));
        command.envs(self.env.iter().map(|(key, value)| (*key, value.as_str())));
        command.current_dir(self.work()).kill_on_drop(true);
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    pub async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"").await
    }

    pub async fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.spawn(args);
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let feeding = tokio::spawn(async move {
            // A program that does not read its input is fine.
            let _ = stdin.write_all(&input).await;
        });
        let output = child.wait_with_output().await.expect("the program ends");
        feeding.await.expect("no panic");
        Ran {
            code: output.status.code().expect("it exits"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// A server whose sprites run commands on this computer, without a terminal; other calls go to `rest`.
pub async fn running<F, T>(rest: F) -> Fake
where
    F: Fn(Seen, Conn) -> T + Send + Sync + Clone + 'static,
    T: Future<Output = Option<Conn>> + Send + 'static,
{
    Fake::start(move |seen, conn| {
        let rest = rest.clone();
        async move {
            if !seen.is_websocket() {
                return rest(seen, conn).await;
            }
            let socket = hello(&seen, conn, false).await;
            run_here(socket, &seen).await;
            None
        }
    })
    .await
}

/// Accepts a WebSocket and says which session it is.
pub async fn hello(seen: &Seen, conn: Conn, tty: bool) -> Socket {
    let mut socket = conn.websocket(seen).await;
    let info = format!(
        r#"{{"type":"session_info","session_id":"77","command":"x","created":1,"cols":0,"rows":0,"is_owner":true,"tty":{tty}}}"#
    );
    socket
        .send(Message::text(info))
        .await
        .expect("the client reads");
    socket
}

async fn run_here(socket: Socket, seen: &Seen) {
    let argv = seen.query("cmd");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).process_group(0).kill_on_drop(true);
    command.envs(
        seen.query("env")
            .iter()
            .filter_map(|pair| pair.split_once('=')),
    );
    if let Some(dir) = seen.query("dir").first() {
        command.current_dir(dir);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut sink, mut stream) = socket.split();
    let Ok(mut child) = command.spawn() else {
        let _ = sink.send(Message::binary(vec![3, 127])).await;
        return;
    };
    let pid = child.id().expect("it runs");
    let mut stdin = child
        .stdin
        .take()
        .filter(|_| seen.query("stdin") == ["true"]);
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let incoming = tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) if bytes.first() == Some(&0) => {
                    if let Some(stdin) = &mut stdin {
                        let _ = stdin.write_all(&bytes[1..]).await;
                    }
                }
                Message::Binary(bytes) if bytes.first() == Some(&4) => stdin = None,
                Message::Text(text) => {
                    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    if value["type"] == "signal" {
                        let name = value["signal"].as_str().expect("a name").to_owned();
                        let group = format!("-{pid}");
                        let sent = Command::new("kill")
                            .args(["-s", &name, "--", &group])
                            .status()
                            .await;
                        sent.expect("kill runs");
                    }
                }
                _ => {}
            }
        }
    });
    let (mut out, mut err) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let frame = tokio::select! {
            read = stdout.read(&mut out), if out_open => {
                let len = read.expect("a pipe");
                out_open = len > 0;
                [&[1], &out[..len]].concat()
            }
            read = stderr.read(&mut err), if err_open => {
                let len = read.expect("a pipe");
                err_open = len > 0;
                [&[2], &err[..len]].concat()
            }
        };
        if frame.len() > 1 && sink.send(Message::binary(frame)).await.is_err() {
            return;
        }
    }
    let status = child.wait().await.expect("it ended");
    let code = exit_code(status);
    let _ = sink
        .send(Message::text(format!(
            r#"{{"type":"exit","exit_code":{code},"code":{code}}}"#
        )))
        .await;
    let _ = sink.send(Message::binary(vec![3, code])).await;
    let _ = incoming.await;
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.expect("it exited or was killed")).expect("a byte")
}

/// A server that nobody should ask anything but what `run_here` answers.
pub async fn nothing_else(_: Seen, conn: Conn) -> Option<Conn> {
    conn.reply(500, r#"{"error":"unexpected"}"#).await
}
