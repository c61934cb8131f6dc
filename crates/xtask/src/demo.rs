//! `cargo xtask demo`: a sprite's life, from an empty machine to nothing left behind.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host};
use crate::packages;
use crate::program::Program;
use crate::server::{Build, MINIMAL, Server};

/// The steps, as they are printed. SPECIFICATION.md names them.
pub const STEPS: &[&str] = &[
    "build",
    "server",
    "token",
    "create",
    "exec",
    "environment",
    "terminal",
    "files",
    "session",
    "kill -9",
    "adopted",
    "destroy",
    "removed",
];

/// How often the session of the demo says something, and how often in all.
const TICKS: u32 = 40;

/// The session's exit status: one that nothing else would give.
const SESSION_STATUS: i32 = 42;

/// Lives a sprite's life and prints each step with its time.
///
/// # Errors
/// A step fails, or the person interrupts; everything is removed all the same.
pub fn run(host: Host, build: Build, consent: Consent) -> Outcome {
    let begun = Instant::now();
    let missing = packages::missing(packages::SERVE);
    let mut steps: Vec<String> = packages::announcement(&missing).into_iter().collect();
    steps.push(
        "sprited serve --data-dir /var/tmp/sprited-demo-… (machines, network, mounts; all removed at the end)"
            .to_owned(),
    );
    steps.push(
        "the base image is made once and kept in /var/cache/sprited (remove it with: sudo rm -r /var/cache/sprited)"
            .to_owned(),
    );
    host.agree(&steps, consent)?;
    packages::install(&host, &missing)?;

    timed("build", || {
        build.make().map(|()| ((), build.name().to_owned()))
    })?;
    perform(host, build, &[])?;
    println!("done in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// As [`run`], with programs that are built already, on the minimal image.
///
/// # Errors
/// As [`run`].
pub fn run_built(host: Host, build: Build) -> Outcome {
    perform(host, build, MINIMAL)
}

fn perform(host: Host, build: Build, flags: &[&str]) -> Outcome {
    let mut server = timed("server", || {
        let server = Server::start(host, build, "demo", flags)?;
        let url = server.url().to_owned();
        Ok((server, url))
    })?;
    let lived = live(&mut server).and_then(|()| crate::interrupt::check());
    let gone = timed("removed", || {
        server.remove().map(|()| ((), "nothing is left".to_owned()))
    });
    crate::interrupt::check()?;
    lived?;
    gone
}

fn live(server: &mut Server) -> Outcome {
    let client = step("token", || {
        let client = Client::log_in(server)?;
        Ok((client, "organisation demo".to_owned()))
    })?;
    step("create", || {
        client.read(&["create", "demo", "--skip-console"])?;
        let info: Value = client.json(&["info", "--sprite", "demo", "--json"])?;
        let isolation = info["isolation"].as_str().unwrap_or("not said");
        Ok(((), format!("isolation: {isolation}")))
    })?;
    step("exec", || {
        let said = client.exec(&["echo", "hello from a sprite"])?;
        expect(&said, "hello from a sprite")
    })?;
    step("environment", || {
        let said = client.exec(&["sh", "-c", "id -un; hostname; pwd; head -1 /etc/os-release"])?;
        let lines: Vec<&str> = said.lines().collect();
        match lines[..] {
            ["sprite", "demo", "/home/sprite", system] => {
                Ok(((), format!("sprite@demo, {system}")))
            }
            _ => Err(Failure::Check(format!("unexpected environment: {said}"))),
        }
    })?;
    step("terminal", || {
        let said = client.read(&[
            "exec",
            "--sprite",
            "demo",
            "--tty",
            "--",
            "sh",
            "-c",
            "test -t 0 && test -t 1 && tty",
        ])?;
        expect(&said, "/dev/pts/")
    })?;
    step("files", || {
        client.exec(&["sh", "-c", "echo kept > notes"])?;
        expect(&client.exec(&["cat", "notes"])?, "kept")
    })?;
    let session = step("session", || {
        let id = client.start_session()?;
        let shown = format!("number {id} counts to {TICKS}, nobody attached");
        Ok((id, shown))
    })?;
    step("kill -9", || {
        server.kill()?;
        server.start_again()?;
        Ok(((), "sprited was killed and started again".to_owned()))
    })?;
    step("adopted", || client.attach(&session))?;
    step("destroy", || {
        expect(&client.exec(&["cat", "notes"])?, "kept")?;
        client.read(&["destroy", "demo", "--force"])?;
        let left = client.read(&["list", "--json"])?;
        if left.contains("\"demo\"") {
            return Err(Failure::Check(format!(
                "the sprite is still listed: {left}"
            )));
        }
        Ok(((), "sprite, disk and machine are gone".to_owned()))
    })
}

/// A step of the sprite's life: not begun once the person asked to stop.
fn step<T>(name: &str, work: impl FnOnce() -> Outcome<(T, String)>) -> Outcome<T> {
    crate::interrupt::check()?;
    timed(name, work)
}

/// Runs a step and prints its name, its time and what it found.
fn timed<T>(name: &str, step: impl FnOnce() -> Outcome<(T, String)>) -> Outcome<T> {
    debug_assert!(STEPS.contains(&name), "{name} is not in the list of steps");
    let begun = Instant::now();
    match step() {
        Ok((value, found)) => {
            println!(
                "{:>9.3} s  {name:<12} {found}",
                begun.elapsed().as_secs_f64()
            );
            Ok(value)
        }
        Err(failure) => {
            println!(
                "{:>9.3} s  {name:<12} FAILED",
                begun.elapsed().as_secs_f64()
            );
            Err(failure)
        }
    }
}

fn expect(said: &str, wanted: &str) -> Outcome<((), String)> {
    if said.contains(wanted) {
        Ok(((), said.trim().replace(['\r', '\n'], " ")))
    } else {
        Err(Failure::Check(format!("expected {wanted:?} in {said:?}")))
    }
}

/// The `sprite` command line with a home of its own, so that the person's files are not touched.
struct Client {
    program: std::path::PathBuf,
    home: std::path::PathBuf,
}

impl Client {
    fn log_in(server: &Server) -> Outcome<Self> {
        let client = Self {
            program: server.sprite(),
            home: server.home()?,
        };
        let token = server.token("demo")?;
        client
            .command(&["auth", "setup", "--url", server.url(), "--token", "-"])
            .read_with_input(&token)?;
        Ok(client)
    }

    fn command(&self, words: &[&str]) -> Program {
        Program::new(&self.program)
            .args(words)
            .unset(&[
                "SPRITE_URL",
                "SPRITES_API_URL",
                "SPRITE_TOKEN",
                "SPRITE_ORG",
            ])
            .env("HOME", &self.home)
            .dir(&self.home)
    }

    fn read(&self, words: &[&str]) -> Outcome<String> {
        self.command(words).read()
    }

    fn json(&self, words: &[&str]) -> Outcome<Value> {
        let text = self.read(words)?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::Check(format!("read the answer {text:?}: {error}")))
    }

    fn exec(&self, words: &[&str]) -> Outcome<String> {
        let mut all = vec!["exec", "--sprite", "demo", "--"];
        all.extend(words);
        self.read(&all)
    }

    /// Starts a session that counts, leaves it as a lost connection would, and gives back its id.
    fn start_session(&self) -> Outcome<String> {
        let script = format!(
            "i=0; while [ $i -lt {TICKS} ]; do i=$((i+1)); echo tick $i; sleep 0.1; done; exit {SESSION_STATUS}"
        );
        let mut attached = self
            .command(&[
                "exec", "--sprite", "demo", "--tty", "--", "sh", "-c", &script,
            ])
            .spawn_piped()?;
        let output = attached
            .stdout
            .take()
            .expect("stdout was asked for as a pipe");
        let counting = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.trim_end() == "tick 3");
        attached.kill().map_err(Failure::io("leave the session"))?;
        attached.wait().map_err(Failure::io("leave the session"))?;
        if !counting {
            return Err(Failure::Check(
                "the session ended before it counted to 3".to_owned(),
            ));
        }
        let list = self.json(&["sessions", "list", "--sprite", "demo", "--json"])?;
        let sessions = list["sessions"].as_array().or(list.as_array());
        let id = sessions
            .and_then(|sessions| sessions.first())
            .map(|first| &first["id"]);
        match id.and_then(Value::as_str) {
            Some(id) => Ok(id.to_owned()),
            None => Err(Failure::Check(format!("the session is not listed: {list}"))),
        }
    }

    /// Attaches again: the session must have counted on, and end with its own exit status.
    fn attach(&self, session: &str) -> Outcome<((), String)> {
        let begun = Instant::now();
        let said = self
            .command(&["attach", session, "--sprite", "demo"])
            .say()?;
        let last = format!("tick {TICKS}");
        let count = said
            .stdout
            .lines()
            .filter(|line| line.trim_end() == last)
            .count();
        if said.status.code() != Some(SESSION_STATUS) || count != 1 {
            return Err(Failure::Check(format!(
                "the session ended with {} after {:?}:\n{}{}",
                said.status,
                Duration::as_secs_f64(&begun.elapsed()),
                said.stdout,
                said.stderr
            )));
        }
        Ok((
            (),
            format!("the session counted on to {TICKS} and ended with {SESSION_STATUS}"),
        ))
    }
}
