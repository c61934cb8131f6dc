//! A jail with files of a test's own and the probe as its monitor.

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sprite_agent_api::launch::{JailAccess, JailFile, JailSpec, LaunchReport};
use sprite_agent_api::wire;
use tempfile::TempDir;

/// A user that nobody is here.
pub(crate) const ID: u32 = 0x7fff_0000;

/// Whether jails can be made here; says in one line why not.
pub(crate) fn ready() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make jails; run cargo xtask test --all");
        return false;
    }
    if let Some(device) = ["/dev/kvm", "/dev/net/tun"]
        .into_iter()
        .find(|device| !Path::new(device).exists())
    {
        eprintln!("skipped: there is no {device} to bring into a jail; run cargo xtask kvm-test");
        return false;
    }
    true
}

/// The probe's file, built unless the one that is there is as new as its source.
pub(crate) fn probe() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jail/probe/main.rs");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jail-probe");
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    // Tests are processes of their own, and run side by side.
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let program = directory.join("probe");
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if modified(&program).is_some() && modified(&program) > modified(&source) {
        return program;
    }
    let fresh = directory.join("probe.new");
    let built = Command::new("rustc")
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .output()
        .expect("rustc can be started");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o555)).unwrap();
    fs::rename(&fresh, &program).unwrap();
    program
}

/// What a jail is made of.
pub(crate) struct Jail {
    directory: TempDir,
    pub(crate) spec: JailSpec,
    /// Keeps the network namespace's thread.
    _network: std::sync::mpsc::Sender<()>,
}

impl Jail {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["kernel", "disk", "cgroup.procs"] {
            fs::write(path(name), name).unwrap();
        }
        fs::set_permissions(path("kernel"), fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(path("disk"), fs::Permissions::from_mode(0o600)).unwrap();
        for name in ["snapshot", "root"] {
            fs::create_dir(path(name)).unwrap();
        }
        let file = |name: &str, access| JailFile {
            path: path(name),
            name: name.to_owned(),
            access,
        };
        let (netns, network) = namespace();
        let spec = JailSpec {
            program: probe(),
            arguments: Vec::new(),
            id: ID,
            netns,
            cgroups: vec![path("cgroup.procs")],
            root: path("root"),
            files: vec![
                file("kernel", JailAccess::Read),
                file("disk", JailAccess::WriteAlone),
                file("snapshot", JailAccess::Write),
            ],
            largest_file: 1 << 20,
        };
        Self {
            directory,
            spec,
            _network: network,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Builds it, as a driver does.
    pub(crate) fn start(&self) -> Running {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (output, written) = std::io::pipe().unwrap();
        let launcher = Command::new(env!("CARGO_BIN_EXE_sprite-agent"))
            .arg("jail")
            .env("SECRET", "of the server")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(written.try_clone().unwrap())
            .stderr(written)
            .spawn()
            .unwrap();
        let range = File::open("/dev/null").unwrap();
        wire::send(&ours, &self.spec, &[range.as_fd()]).unwrap();
        let got = wire::receive::<LaunchReport>(&ours).unwrap();
        let (report, _) = got.expect("a report");
        Running {
            report,
            driver: Some(ours),
            launcher,
            output,
        }
    }

    /// Builds it, and returns all that the monitor printed.
    pub(crate) fn run(&self) -> String {
        let running = self.start();
        match &running.report {
            LaunchReport::Started { .. } => running.finish(),
            LaunchReport::Failed { step, errno } => panic!("{step}: {errno:?}"),
        }
    }
}

/// A jail that was started.
pub(crate) struct Running {
    pub(crate) report: LaunchReport,
    driver: Option<UnixStream>,
    launcher: Child,
    output: PipeReader,
}

impl Running {
    fn finish(mut self) -> String {
        // The launcher ends when its driver has heard it; the monitor goes on.
        drop(self.driver.take());
        self.launcher.wait().unwrap();
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        said
    }

    /// Kills the monitor, and waits until it is gone.
    pub(crate) fn end(self) {
        let LaunchReport::Started { pid } = self.report else {
            panic!("nothing was started");
        };
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Its output ends with it, after its locks.
        self.finish();
    }
}

/// A network namespace with nothing in it, for as long as the sender lives.
fn namespace() -> (PathBuf, std::sync::mpsc::Sender<()>) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: file descriptor tables stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let process = std::process::id();
        tell.send(format!("/proc/{process}/task/{thread}/ns/net"))
            .unwrap();
        // Ends when the jail is dropped.
        let _ = receiver.recv();
    });
    (told.recv().unwrap().into(), sender)
}
