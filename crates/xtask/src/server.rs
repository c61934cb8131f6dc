//! A `sprited` of our own: started on a temporary data directory, killed, started again, and removed with all
//! that it set up.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::host::{Host, target_directory};
use crate::interrupt;
use crate::leftovers::Traces;
use crate::program::Program;

/// A first start downloads and builds the base image; a slow mirror must not fail it.
const READY_WITHIN: Duration = Duration::from_secs(25 * 60);

/// SIGTERM stops every machine in order, each within seconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// How much of what the server said is repeated when it fails.
const REPEATED_LINES: usize = 60;

/// Which of cargo's builds is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Quick to make, slow to run.
    Debug,
    /// What users run.
    Release,
}

impl Build {
    /// Its name, as cargo has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }

    /// Where its programs lie.
    pub fn directory(self) -> PathBuf {
        target_directory().join(self.name())
    }

    /// Builds the server and the client.
    ///
    /// # Errors
    /// They do not compile.
    pub fn make(self) -> Outcome {
        self.cargo(&["--package", "sprited", "--package", "sprite"])
    }

    /// Builds the client alone.
    ///
    /// # Errors
    /// It does not compile.
    pub fn make_client(self) -> Outcome {
        self.cargo(&["--package", "sprite"])
    }

    fn cargo(self, packages: &[&str]) -> Outcome {
        let program = Program::cargo().args(["build", "--locked"]).args(packages);
        let program = program.dir(crate::host::workspace());
        match self {
            Self::Debug => program.run(),
            Self::Release => program.args(["--release"]).run(),
        }
    }
}

/// Flags for a server whose sprites hold little more than a shell: its image is made in half a minute.
pub const MINIMAL: &[&str] = &["--image", "minimal"];

/// What the server's process tells us.
enum Event {
    Said(String),
    Ended(String),
    Interrupted,
}

/// A server on a directory that is ours. Dropping it removes everything, also after a failure.
pub struct Server {
    host: Host,
    build: Build,
    flags: Vec<String>,
    directory: PathBuf,
    events: Receiver<Event>,
    events_from: Sender<Event>,
    errors: Arc<Mutex<Vec<String>>>,
    pid: Option<u32>,
    url: String,
    removed: bool,
}

impl Server {
    /// Starts a server on a new temporary directory and waits until it is ready. `flags` are those of `sprited
    /// serve`, beside its directory and address.
    ///
    /// # Errors
    /// It does not become ready; what it said is part of the failure.
    pub fn start(host: Host, build: Build, purpose: &str, flags: &[&str]) -> Outcome<Self> {
        // Not below /tmp, which may be memory: sprites' disks belong on a real one.
        let directory = PathBuf::from(format!("/var/tmp/sprited-{purpose}-{}", std::process::id()));
        std::fs::create_dir(&directory)
            .map_err(Failure::io(format!("make {}", directory.display())))?;
        let (events_from, events) = channel();
        let interruption = events_from.clone();
        interrupt::subscribe(move || {
            // Nobody listens any more once the server is gone.
            let _ = interruption.send(Event::Interrupted);
        });
        let mut server = Self {
            host,
            build,
            flags: flags.iter().copied().map(str::to_owned).collect(),
            directory,
            events,
            events_from,
            errors: Arc::default(),
            pid: None,
            url: String::new(),
            removed: false,
        };
        server.launch()?;
        Ok(server)
    }

    /// Where the server listens, as `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A directory for a client's files; it goes when the server is removed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn home(&self) -> Outcome<PathBuf> {
        let home = self.directory.join("home");
        std::fs::create_dir_all(&home).map_err(Failure::io(format!("make {}", home.display())))?;
        Ok(home)
    }

    /// The server's data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The `sprite` of the same build.
    pub fn sprite(&self) -> PathBuf {
        self.build.directory().join("sprite")
    }

    /// The `sprited` of this server.
    pub fn sprited(&self) -> PathBuf {
        self.build.directory().join("sprited")
    }

    /// A token of an organisation, which is made if it is new.
    ///
    /// # Errors
    /// The server's command fails.
    pub fn token(&self, organisation: &str) -> Outcome<String> {
        let program = Program::new(self.sprited())
            .args(["token", "create", "--org", organisation, "--data-dir"])
            .args([self.data()]);
        let text = self.host.as_root(program)?.read()?;
        Ok(text.trim().to_owned())
    }

    /// Kills the server with SIGKILL and waits until it is gone. Its machines run on.
    ///
    /// # Errors
    /// It is not running, or does not go.
    pub fn kill(&mut self) -> Outcome {
        self.signal("KILL", STOPPED_WITHIN)
    }

    /// Starts it again after [`Server::kill`], on the same address.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_again(&mut self) -> Outcome {
        self.launch()
    }

    /// Stops the server and removes all that it ever set up, and its directory.
    ///
    /// # Errors
    /// Something is left: the failure says what.
    pub fn remove(mut self) -> Outcome {
        self.take_down()
    }

    fn launch(&mut self) -> Outcome {
        let listen = match self.url.strip_prefix("http://") {
            Some(address) => address.trim_end_matches('/').to_owned(),
            None => "127.0.0.1:0".to_owned(),
        };
        // The shell tells its own id, which is the server's after exec, whatever stands between.
        let program = Program::new("sh")
            .args(["-c", r#"echo "$$"; exec "$0" "$@""#])
            .args([self.sprited()])
            .args(["serve", "--listen", &listen, "--data-dir"])
            .args([self.data()])
            .args(&self.flags)
            .own_group();
        let mut child = self.host.as_root(program)?.spawn_piped()?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let (said, ended) = (self.events_from.clone(), self.events_from.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(Event::Said(line)).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::clone(&self.errors);
        let shown = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let show = Arc::clone(&shown);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if show.load(std::sync::atomic::Ordering::Relaxed) {
                    eprintln!("  {line}");
                }
                keep(&errors, line);
            }
        });
        std::thread::spawn(move || {
            let how = match child.wait() {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            let _ = ended.send(Event::Ended(how));
        });
        let ready = self.wait_until_ready();
        // From here on the log is of interest only if something fails.
        shown.store(false, std::sync::atomic::Ordering::Relaxed);
        ready
    }

    fn wait_until_ready(&mut self) -> Outcome {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            interrupt::check()?;
            match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(Event::Said(line)) => {
                    if let Ok(pid) = line.trim().parse() {
                        self.pid = Some(pid);
                    } else if let Some(url) = line.trim().strip_prefix("listening on ") {
                        url.clone_into(&mut self.url);
                        return Ok(());
                    }
                }
                Ok(Event::Ended(how)) => {
                    self.pid = None;
                    return Err(self.failure(&format!("sprited ended before it was ready: {how}")));
                }
                Ok(Event::Interrupted) => return Err(Failure::Interrupted),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(self.failure("sprited did not become ready in time"));
                }
            }
        }
    }

    fn signal(&mut self, signal: &str, within: Duration) -> Outcome {
        let Some(pid) = self.pid else {
            return Err(Failure::Check("sprited is not running".to_owned()));
        };
        let kill = Program::new("kill")
            .args(["-s", signal, &pid.to_string()])
            .own_group();
        self.host.as_root(kill)?.read()?;
        let deadline = Instant::now() + within;
        loop {
            match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(Event::Ended(_)) => break,
                Ok(Event::Said(_) | Event::Interrupted) => {}
                Err(_) => {
                    return Err(self.failure(&format!("sprited did not end after SIG{signal}")));
                }
            }
        }
        self.pid = None;
        Ok(())
    }

    fn take_down(&mut self) -> Outcome {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        let stopped = match self.pid {
            Some(_) => self
                .signal("TERM", STOPPED_WITHIN)
                .or_else(|failure| self.signal("KILL", STOPPED_WITHIN).and(Err(failure))),
            None => Ok(()),
        };
        let purged = self.purge();
        let removed = remove_directory(&self.host, &self.directory);
        stopped.and(purged).and(removed)
    }

    /// Has the server's own command remove everything, and looks whether it did.
    fn purge(&self) -> Outcome {
        let data = self.data();
        if !data.exists() {
            return Ok(());
        }
        let instance = Program::new("cat")
            .args([data.join("instance")])
            .own_group();
        let instance = self.host.as_root(instance)?.read()?;
        let purge = Program::new(self.sprited())
            .args(["purge", "--data-dir"])
            .args([&data]);
        self.host.as_root(purge.own_group())?.read()?;
        let traces = Traces {
            instance: instance.trim(),
            directory: &self.directory,
        };
        traces.none_left(&self.host)
    }

    fn failure(&self, what: &str) -> Failure {
        let errors = self
            .errors
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Failure::Check(format!("{what}; it said:\n{}", errors.join("\n")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(failure) = self.take_down() {
            eprintln!("taking the server down: {failure}");
        }
    }
}

fn keep(errors: &Mutex<Vec<String>>, line: String) {
    let mut errors = errors
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if errors.len() == REPEATED_LINES {
        errors.remove(0);
    }
    errors.push(line);
}

/// Removes a directory of ours, but never across a mount point that is still there.
fn remove_directory(host: &Host, directory: &Path) -> Outcome {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .map_err(Failure::io("read the list of mounts"))?;
    let below = directory.display().to_string();
    if mounts.lines().any(|line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|at| at.starts_with(&below))
    }) {
        return Err(Failure::Check(format!(
            "something is still mounted below {below}"
        )));
    }
    let program = Program::new("rm")
        .args(["-rf", "--one-file-system"])
        .args([directory]);
    host.as_root(program.own_group())?.read().map(drop)
}
