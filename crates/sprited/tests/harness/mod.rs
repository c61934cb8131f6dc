//! A real server for tests: the built program, on a data directory of its own, with the minimal base image.
//!
//! Needs root, the packages of a base image and their archive for its first use; [`ready`] says why a test
//! skips. At its end everything is purged, and [`Server::finish`] fails if a trace is left on the host.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sprite_client::{Client, ExecError, Output, Sprite};
use tempfile::TempDir;

/// Longest first start: the base image may have to be made.
const START_WITHIN: Duration = Duration::from_secs(600);

/// Longest boot of an emulated machine on a busy computer.
const BOOT_WITHIN: Duration = Duration::from_secs(240);

/// Whether machines can be made here; says in one line why not.
pub(crate) fn ready() -> bool {
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        eprintln!("skipped: only root can make machines; run cargo xtask test --all");
        return false;
    }
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        eprintln!("skipped: mmdebstrap is missing; run cargo xtask test --all");
        return false;
    }
    true
}

/// The driver of the servers: that of `SPRITED_DRIVER`, by which `cargo xtask kvm-test` runs the tests with each.
pub(crate) fn driver() -> String {
    std::env::var("SPRITED_DRIVER").unwrap_or_else(|_| "container".to_owned())
}

/// Whether machines are virtual ones here, with what only those have; says in one line why not.
pub(crate) fn virtual_machines() -> bool {
    if !ready() {
        return false;
    }
    if driver() != "microvm" {
        eprintln!("skipped: only driver microvm has what is tried here; run cargo xtask kvm-test");
        return false;
    }
    true
}

/// What a shell's script in a sprite says, without the space around it; fails if the script does.
pub(crate) async fn text(sprite: &Sprite, script: &str) -> String {
    let output = patiently(sprite, script).await;
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    String::from_utf8(output.stdout.to_vec())
        .unwrap()
        .trim()
        .to_owned()
}

/// Runs a shell's script. A sprite that starts is waited for until [`BOOT_WITHIN`], which is longer than clients wait.
pub(crate) async fn patiently(sprite: &Sprite, script: &str) -> Result<Output, ExecError> {
    let deadline = tokio::time::Instant::now() + BOOT_WITHIN;
    loop {
        let ran = sprite.command("sh").args(["-c", script]).output().await;
        let starting = match &ran {
            Err(ExecError::Start(error)) => error.refusal(),
            Ok(_) | Err(_) => None,
        };
        let starts = starting.is_some_and(|refusal| refusal.code == "sprite_starting");
        if !starts || tokio::time::Instant::now() >= deadline {
            return ran;
        }
    }
}

/// A server that runs.
pub(crate) struct Server {
    directory: TempDir,
    child: Option<Child>,
    flags: Vec<String>,
    address: String,
    /// Where it tells its metrics, if it does.
    pub(crate) metrics: Option<String>,
    token: String,
    /// As a service manager holds it while no server runs.
    socket: Option<std::net::TcpListener>,
}

fn sprited() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sprited"))
}

impl Server {
    /// Starts a server of minimal sprites that stay awake, unless `flags` say otherwise.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), flags)
    }

    /// As [`Server::start`], with a pool of its own that has room for `bytes` and can be filled without harm to
    /// anybody else.
    pub(crate) fn start_with_pool_of(bytes: u64, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // As a server makes it; one that finds it uses it.
        let pool = data.join("pool.xfs");
        std::fs::File::create_new(&pool)
            .and_then(|file| file.set_len(bytes))
            .unwrap();
        let made = Command::new("mkfs.xfs")
            .args(["-q", "-m", "reflink=1", "-s", "size=4096"])
            .arg(&pool)
            .status();
        assert!(made.expect("mkfs.xfs can be started").success());
        Self::start_in(directory, flags)
    }

    fn start_in(directory: TempDir, flags: &[&str]) -> Self {
        let mut server = Self {
            directory,
            child: None,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            address: "127.0.0.1:0".to_owned(),
            metrics: None,
            token: String::new(),
            socket: None,
        };
        server.restart();
        server.token = server.make_token("test");
        server
    }

    /// Starts a server whose socket is held for it, also while none runs.
    pub(crate) fn start_with_socket(flags: &[&str]) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            address: socket.local_addr().unwrap().to_string(),
            metrics: None,
            token: String::new(),
            socket: Some(socket),
        };
        server.restart();
        server.token = server.make_token("test");
        server
    }

    /// The server's data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A token of an organisation.
    pub(crate) fn make_token(&self, org: &str) -> String {
        let made = sprited()
            .args(["token", "create", "--org", org, "--data-dir"])
            .arg(self.data_dir())
            .output();
        let made = made.expect("sprited can be started");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        String::from_utf8(made.stdout)
            .expect("a token is text")
            .trim()
            .to_owned()
    }

    /// Starts the server again on the same address; the old process must be gone.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "the old process still runs");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut command = match &self.socket {
            None => sprited(),
            Some(socket) => {
                let take = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
                let mut shell = Command::new("sh");
                shell.args(["-c", take, env!("CARGO_BIN_EXE_sprited")]);
                shell.stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
                shell
            }
        };
        command.args(["serve", "--driver", &driver(), "--listen", &self.address]);
        for (flag, value) in [("--image", "minimal"), ("--idle-timeout", "never")] {
            if !self.flags.iter().any(|given| given == flag) {
                command.args([flag, value]);
            }
        }
        command
            .args(&self.flags)
            .arg("--data-dir")
            .arg(self.data_dir());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("sprited can be started");
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut metrics = None;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("metrics on ") {
                    metrics = Some(url.to_owned());
                }
                if let Some(url) = line.strip_prefix("listening on http://") {
                    // The test may have given up.
                    let _ = tell.send((url.to_owned(), metrics.clone()));
                }
            }
        });
        match told.recv_timeout(START_WITHIN) {
            Ok((address, metrics)) => (self.address, self.metrics) = (address, metrics),
            Err(_) => panic!("sprited did not start:\n{}", self.log()),
        }
    }

    /// Kills the server as a crash would. Machines live on.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the server as an operator would.
    pub(crate) fn stop(&mut self) {
        self.end_by(rustix::process::Signal::TERM);
    }

    /// Ends the server as an upgrade does. Machines live on.
    pub(crate) fn hand_over(&mut self) {
        self.end_by(rustix::process::Signal::USR2);
    }

    fn end_by(&mut self, signal: rustix::process::Signal) {
        let mut child = self.child.take().expect("a server runs");
        let pid = i32::try_from(child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert!(
            status.success(),
            "sprited ended with {status}:\n{}",
            self.log()
        );
    }

    /// Process id of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a server runs").id()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("sprited.log")
    }

    /// All that the server logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `http://ADDR:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first organisation's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A client of the first organisation.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url(), &self.token).expect("a client")
    }

    /// A new sprite. A virtual one is awake: emulated, its boot may take longer than any client waits.
    pub(crate) async fn sprite(&self, name: &str) -> Sprite {
        let client = self.client();
        client
            .create(name)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()));
        let sprite = client.sprite(name);
        self.boots(&sprite).await;
        sprite
    }

    /// Waits for the boot of a sprite that was made, if it is a virtual one.
    pub(crate) async fn boots(&self, sprite: &Sprite) {
        if driver() != "microvm" {
            return;
        }
        let ran = patiently(sprite, "true").await;
        assert!(ran.is_ok(), "{ran:?}\n{}", self.log());
    }

    /// The mark of this data directory.
    pub(crate) fn instance(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("instance"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// The directories of the machines that there are.
    pub(crate) fn machines(&self) -> Vec<String> {
        let machines = format!("/run/sprited/{}/m", self.instance());
        let entries = std::fs::read_dir(machines).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().display().to_string())
            .collect()
    }

    /// The files in which the only sprite's memory is kept.
    pub(crate) fn snapshot_files(&self) -> Vec<PathBuf> {
        let snapshots = self.data_dir().join("pool/snapshots");
        let sprite = std::fs::read_dir(snapshots)
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let (mut files, mut directories) = (Vec::new(), vec![sprite.path()]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files
    }

    /// The file of the only sprite's disk.
    pub(crate) fn disk(&self) -> PathBuf {
        let mut disks = std::fs::read_dir(self.data_dir().join("pool/disks")).unwrap();
        disks.next().unwrap().unwrap().path()
    }

    /// Process id of the only machine's agent, from the machine's record.
    pub(crate) fn agent_pid(&self) -> u64 {
        let machines = format!("/run/sprited/{}/m", self.instance());
        let machine = std::fs::read_dir(machines)
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let record = std::fs::read(machine.path().join("machine.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["process"]["pid"].as_u64().unwrap()
    }

    /// Removes all that the server set on the host.
    pub(crate) fn purge(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        let purged = sprited()
            .arg("purge")
            .arg("--data-dir")
            .arg(self.data_dir())
            .output()
            .unwrap();
        assert!(
            purged.status.success(),
            "{}",
            String::from_utf8_lossy(&purged.stderr)
        );
    }

    /// What of this server is on the host, one line each.
    pub(crate) fn traces(&self) -> Vec<String> {
        traces(&self.instance(), &self.data_dir())
    }

    /// Purges, and fails if anything is left.
    ///
    /// A machine that another server starts in this moment has a copy of the host's mounts for some
    /// milliseconds, which keeps an unmounted pool's loop device: that is waited for.
    pub(crate) fn finish(mut self) {
        self.purge();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < deadline && !self.traces().is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.traces(), Vec::<String>::new());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.data_dir().exists() {
            return;
        }
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        // In a failing test the first failure is the one to see.
        let _ = sprited()
            .arg("purge")
            .arg("--data-dir")
            .arg(self.data_dir())
            .output();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}

/// What an instance has on the host: namespaces, links, tables, cgroups, mounts, loop devices, sockets.
pub(crate) fn traces(instance: &str, data_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = |what: &str, dir: &str| {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(instance) {
                found.push(format!("{what} {dir}/{name}"));
            }
        }
    };
    names("namespace", "/run/netns");
    names("link", "/sys/class/net");
    names("run directory", "/run/sprited");
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        names("cgroup", &entry.path().to_string_lossy());
    }
    names("cgroup", "/sys/fs/cgroup");
    let tables = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .map(|out| out.stdout)
        .unwrap_or_default();
    let tables = String::from_utf8_lossy(&tables);
    found.extend(
        tables
            .lines()
            .filter(|t| t.contains(instance))
            .map(|t| format!("nftables {t}")),
    );
    let data = data_dir
        .canonicalize()
        .unwrap_or_else(|_| data_dir.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|at| Path::new(at).starts_with(&data))
    };
    found.extend(
        mounts
            .lines()
            .filter(below)
            .map(|line| format!("mount {line}")),
    );
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        let backing =
            std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim()).starts_with(&data) {
            found.push(format!(
                "{} on {}",
                entry.file_name().to_string_lossy(),
                backing.trim()
            ));
        }
    }
    found
}

/// Waits until `check` is content; fails with what it said last.
pub(crate) async fn eventually<T>(
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(state) if tokio::time::Instant::now() >= deadline => {
                panic!("not within {limit:?}: {state}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
