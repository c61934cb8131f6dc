//! The program itself, with its control socket.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Client, request};

/// A running program, killed when the test is over.
pub struct Vmm {
    pub child: Child,
    client: Client,
}

impl Vmm {
    /// Starts it in a directory, with a socket of this name there.
    pub fn start(directory: &Path, name: &str) -> Vmm {
        let socket = directory.join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_sprite-vmm"))
            .current_dir(directory)
            .arg("--api-sock")
            .arg(&socket)
            .args(["--id", name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let limit = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(
                Instant::now() < limit && child.try_wait().expect("it is ours").is_none(),
                "the program makes its socket"
            );
            std::thread::yield_now();
        }
        Vmm {
            child,
            client: Client::connect(&socket),
        }
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let body = body.to_string();
        self.client
            .send(request(method, path, &body).as_bytes())
            .ok()?;
        self.client.receive()
    }

    pub fn done(&mut self, method: &str, path: &str, body: &Value) {
        let answer = self.ask(method, path, body);
        if answer != Some((204, Value::Null)) {
            panic!("{method} {path} {body}: {answer:?}, {}", self.last_words());
        }
    }

    /// The status that it ended with by itself, and what it said.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it is ours");
        (status.code(), self.last_words())
    }

    fn last_words(&mut self) -> String {
        // A program that still runs would be waited for.
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).expect("it is text");
        }
        said
    }

    pub fn pause(&mut self) {
        self.done("PATCH", "/vm", &json!({"state": "Paused"}));
    }

    pub fn resume(&mut self) {
        self.done("PATCH", "/vm", &json!({"state": "Resumed"}));
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
