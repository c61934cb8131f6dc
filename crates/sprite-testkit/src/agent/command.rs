//! The programs of the fake agent.
//!
//! `true`, `false`, `echo`, `echo-err` (to stderr), `cat`, `exit N`, `env`, `pwd`, `sleep SECONDS`, `yes BYTES`,
//! `yes-err BYTES`, `stty size`, `hostname`, `tty`, `stubborn SECONDS` (ignores every signal but SIGKILL), and `sh`
//! or `bash`, which take `-c SCRIPT` or read lines: words with quotes, `$NAME`, `;`, `&&` and `>&2`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sprite_agent_api::message::EnvironmentSpec;
use tokio::sync::mpsc;

use super::session::{Output, Session, Stdin};

/// Runs a session's program to its end.
pub(crate) async fn run(
    session: &Arc<Session>,
    stdin: mpsc::Receiver<Stdin>,
    environment: &EnvironmentSpec,
) {
    let stubborn = AtomicBool::new(false);
    let mut process = Process {
        session,
        stubborn: &stubborn,
        input: Input {
            stdin,
            eof: !session.spec.stdin,
            rest: Bytes::new(),
        },
        variables: variables(session, environment),
        hostname: environment.hostname.clone(),
    };
    let program = session
        .spec
        .path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let arguments = session.spec.argv[1..].to_vec();
    let code = tokio::select! {
        biased;
        code = session.signalled(|| stubborn.load(Ordering::Relaxed)) => code,
        code = process.program(&program, &arguments, Output::Stdout) => match code {
            Ended::Status(code) | Ended::Exit(code) => code,
        },
    };
    session.end(code);
}

fn variables(session: &Session, environment: &EnvironmentSpec) -> BTreeMap<String, String> {
    let defaults = [
        ("HOME", "/home/sprite"),
        ("LANG", "C.UTF-8"),
        (
            "PATH",
            "/home/sprite/.local/bin:/usr/local/bin:/usr/bin:/bin",
        ),
        ("SHELL", "/bin/bash"),
        ("USER", "sprite"),
    ];
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let terminal = session
        .spec
        .tty
        .map(|_| ("TERM".to_owned(), "xterm-256color".to_owned()));
    let given = environment.env.iter().chain(&session.spec.env).cloned();
    defaults.into_iter().chain(terminal).chain(given).collect()
}

/// How a program or a shell's line ended.
enum Ended {
    Status(u8),
    /// The shell that it is in ends too.
    Exit(u8),
}

struct Input {
    stdin: mpsc::Receiver<Stdin>,
    eof: bool,
    rest: Bytes,
}

impl Input {
    /// The next bytes; `None` at the end.
    async fn read(&mut self) -> Option<Bytes> {
        if self.rest.has_remaining() {
            return Some(std::mem::take(&mut self.rest));
        }
        if self.eof {
            return None;
        }
        match self.stdin.recv().await {
            Some(Stdin::Bytes(bytes)) => Some(bytes),
            Some(Stdin::Eof) | None => {
                self.eof = true;
                None
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = BytesMut::new();
        while let Some(mut bytes) = self.read().await {
            if let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                line.extend_from_slice(&bytes.split_to(at));
                bytes.advance(1);
                self.rest = bytes;
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            line.extend_from_slice(&bytes);
        }
        if line.is_empty() {
            None
        } else {
            Some(String::from_utf8_lossy(&line).into_owned())
        }
    }
}

struct Process<'s> {
    session: &'s Session,
    stubborn: &'s AtomicBool,
    input: Input,
    variables: BTreeMap<String, String>,
    hostname: String,
}

impl Process<'_> {
    async fn say(&self, output: Output, line: &str) -> Ended {
        self.session
            .write(output, format!("{line}\n").as_bytes())
            .await;
        Ended::Status(0)
    }

    async fn program(&mut self, name: &str, arguments: &[String], output: Output) -> Ended {
        let first = arguments.first().map_or("", String::as_str);
        match name {
            "true" => Ended::Status(0),
            "false" => Ended::Status(1),
            "exit" => Ended::Exit(first.parse().unwrap_or(0)),
            "echo" => self.say(output, &arguments.join(" ")).await,
            "echo-err" => self.say(Output::Stderr, &arguments.join(" ")).await,
            "pwd" => self.say(output, &self.session.workdir()).await,
            "hostname" => self.say(output, &self.hostname).await,
            "cat" => self.cat(output).await,
            "env" => {
                for (name, value) in &self.variables {
                    self.say(output, &format!("{name}={value}")).await;
                }
                Ended::Status(0)
            }
            "sleep" | "stubborn" => {
                self.stubborn.store(name == "stubborn", Ordering::Relaxed);
                let seconds: f64 = first.parse().unwrap_or(0.0);
                tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))).await;
                Ended::Status(0)
            }
            "yes" => self.yes(first, output).await,
            "yes-err" => self.yes(first, Output::Stderr).await,
            "stty" | "tty" => match self.session.size() {
                Some(size) if name == "stty" => {
                    self.say(output, &format!("{} {}", size.rows, size.cols))
                        .await
                }
                Some(_) => self.say(output, "/dev/pts/0").await,
                None => {
                    self.say(output, "not a tty").await;
                    Ended::Status(1)
                }
            },
            "sh" | "bash" => Box::pin(self.shell(arguments, output)).await,
            unknown => {
                self.say(Output::Stderr, &format!("{unknown}: command not found"))
                    .await;
                Ended::Status(127)
            }
        }
    }

    async fn cat(&mut self, output: Output) -> Ended {
        while let Some(bytes) = self.input.read().await {
            // Ctrl-D at a terminal.
            let end = bytes
                .iter()
                .position(|byte| *byte == 4 && self.session.size().is_some());
            self.session
                .write(output, &bytes[..end.unwrap_or(bytes.len())])
                .await;
            if end.is_some() {
                break;
            }
        }
        Ended::Status(0)
    }

    async fn yes(&self, bytes: &str, output: Output) -> Ended {
        let mut left: u64 = bytes.parse().unwrap_or(0);
        let block = b"y\n".repeat(32 << 10);
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.session.write(output, &block[..chunk]).await;
            left -= chunk as u64;
        }
        Ended::Status(0)
    }

    async fn shell(&mut self, arguments: &[String], output: Output) -> Ended {
        let script = arguments
            .iter()
            .position(|argument| argument.ends_with('c') && argument.starts_with('-'));
        if let Some(script) = script.and_then(|at| arguments.get(at + 1)) {
            return match self.script(script, output).await {
                Ended::Status(code) | Ended::Exit(code) => Ended::Status(code),
            };
        }
        let mut last = 0;
        loop {
            if self.session.size().is_some() {
                self.session.write(output, b"$ ").await;
            }
            let Some(line) = self.input.line().await else {
                return Ended::Status(last);
            };
            match self.script(&line, output).await {
                Ended::Status(code) => last = code,
                Ended::Exit(code) => return Ended::Status(code),
            }
        }
    }

    async fn script(&mut self, script: &str, output: Output) -> Ended {
        let mut last = 0;
        for line in script.split([';', '\n']) {
            for part in line.split("&&") {
                let (words, output) = self.words(part, output);
                let Some((name, arguments)) = words.split_first() else {
                    continue;
                };
                match self.program(name, arguments, output).await {
                    Ended::Status(code) => last = code,
                    Ended::Exit(code) => return Ended::Exit(code),
                }
                if last != 0 {
                    break;
                }
            }
        }
        Ended::Status(last)
    }

    fn words(&self, part: &str, mut output: Output) -> (Vec<String>, Output) {
        let mut words = Vec::new();
        let mut rest = part.trim_start();
        while let Some(first) = rest.chars().next() {
            let (word, after) = match first {
                '\'' | '"' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
                _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
            };
            rest = after.trim_start();
            match word.strip_prefix('$') {
                Some(name) if first != '\'' => {
                    words.push(self.variables.get(name).cloned().unwrap_or_default());
                }
                Some(_) | None if matches!(word, ">&2" | "1>&2") => output = Output::Stderr,
                Some(_) | None => words.push(word.to_owned()),
            }
        }
        (words, output)
    }
}
