//! Machines as the driver makes them: the same devices, the same kernel, the same requests.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use sprite_agent_api::guest::KERNEL_PARAMETERS;

use crate::failure::{Failure, Outcome, io_failure};
use crate::monitor::{Monitor, PATIENCE, Place};

/// The tap of the one machine that runs.
pub(crate) const TAP: &str = "tap0";

/// Where everything of this run is.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    /// The monitor's program.
    pub(crate) monitor: PathBuf,
    /// Beside them, the programs of floors: `bench-true`, and archives with those of guests.
    pub(crate) programs: PathBuf,
    /// A directory of our own.
    pub(crate) work: PathBuf,
    pub(crate) kernel: PathBuf,
    /// The archive with the agent.
    pub(crate) agent: PathBuf,
    /// The archive with the guest that does what it is asked.
    pub(crate) asked: PathBuf,
    /// The archive with the guest that only prints.
    pub(crate) prints: PathBuf,
    pub(crate) modules: PathBuf,
}

/// What a guest's first program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Agent,
    Asked,
    Prints,
}

/// Where a machine's files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Bench {
    /// Makes a directory for a machine, with a disk.
    pub(crate) fn files(&self, name: &str, disk_mib: u64) -> Outcome<Files> {
        let directory = self.work.join(name);
        fs::create_dir(&directory).map_err(io_failure(format!("make {}", directory.display())))?;
        let files = Files { directory };
        let disk = File::create(files.disk()).map_err(io_failure("make a disk"))?;
        disk.set_len(disk_mib << 20)
            .map_err(io_failure("size a disk"))?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(files.disk())
            .status()
            .map_err(io_failure("run mkfs.ext4"))?;
        match made.success() {
            true => Ok(files),
            false => Err(Failure::Check(format!("mkfs.ext4 ended with {made}"))),
        }
    }

    /// Starts a monitor and tells it of a machine, which does not run yet.
    pub(crate) fn configure(
        &self,
        files: &Files,
        first: First,
        memory_mib: u64,
        console: Stdio,
    ) -> Outcome<Monitor> {
        let mut monitor = self.start(files, console)?;
        let (archive, parameters) = match first {
            First::Agent => (&self.agent, String::new()),
            First::Asked => (&self.asked, format!(" rdinit=/bench{}", equal_terms()?)),
            First::Prints => (&self.prints, String::new()),
        };
        let size = json!({ "vcpu_count": 1, "mem_size_mib": memory_mib });
        monitor.put("/machine-config", &size)?;
        let boot = json!({
            "kernel_image_path": self.kernel,
            "initrd_path": archive,
            // The last of several words counts.
            "boot_args": format!("{KERNEL_PARAMETERS}{parameters}"),
        });
        monitor.put("/boot-source", &boot)?;
        let drives = [("disk", files.disk()), ("modules", self.modules.clone())];
        for (name, path) in drives {
            let ours = name == "disk";
            let drive = json!({
                "drive_id": name,
                "path_on_host": path,
                "is_root_device": false,
                "is_read_only": !ours,
                "cache_type": if ours { "Writeback" } else { "Unsafe" },
            });
            monitor.put(&format!("/drives/{name}"), &drive)?;
        }
        let card = json!({
            "iface_id": "eth0",
            "guest_mac": "02:00:00:00:00:01",
            "host_dev_name": TAP,
        });
        monitor.put("/network-interfaces/eth0", &card)?;
        let vsock = json!({ "guest_cid": 3, "uds_path": files.vsock() });
        monitor.put("/vsock", &vsock)?;
        monitor.put("/entropy", &json!({}))?;
        Ok(monitor)
    }

    /// Starts a monitor that knows of no machine.
    pub(crate) fn start(&self, files: &Files, console: Stdio) -> Outcome<Monitor> {
        remove(&files.vsock())?;
        Place::watch(&files.directory)?.start(&self.monitor, console)
    }
}

/// Lets a machine run.
pub(crate) fn run(monitor: &mut Monitor) -> Outcome {
    let start = json!({ "action_type": "InstanceStart" });
    monitor.put("/actions", &start)
}

/// How much of a machine's memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Full,
    Changes,
}

/// What becomes of a machine that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Runs,
    Stands,
}

impl Files {
    fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// The socket that leads to the guest.
    pub(crate) fn vsock(&self) -> PathBuf {
        self.directory.join("vsock")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.directory.join("memory")
    }

    /// Where a guest's console may go.
    pub(crate) fn console(&self) -> Outcome<Stdio> {
        let path = self.directory.join("console");
        let file = File::options().create(true).append(true).open(path);
        Ok(file.map_err(io_failure("open the console's file"))?.into())
    }

    /// Writes a machine that stands still.
    pub(crate) fn save(&self, monitor: &mut Monitor, extent: Extent) -> Outcome {
        let kind = match extent {
            Extent::Full => "Full",
            Extent::Changes => "Diff",
        };
        let body = json!({
            "snapshot_type": kind,
            "snapshot_path": self.state(),
            "mem_file_path": self.memory(),
        });
        monitor.put("/snapshot/create", &body)
    }

    /// Makes the machine that was written, in a monitor that has none.
    pub(crate) fn load(&self, monitor: &mut Monitor, then: Then) -> Outcome {
        let body = json!({
            "snapshot_path": self.state(),
            "mem_backend": { "backend_type": "File", "backend_path": self.memory() },
            "resume_vm": then == Then::Runs,
        });
        monitor.put("/snapshot/load", &body)
    }

    /// Listens where the guest's connections to a port of its host arrive.
    pub(crate) fn listen(&self, port: u32) -> Outcome<Door> {
        let path = self.directory.join(format!("vsock_{port}"));
        remove(&path)?;
        let listener = UnixListener::bind(&path)
            .map_err(io_failure(format!("listen at {}", path.display())))?;
        Ok(Door(listener))
    }

    /// Removes all of it.
    pub(crate) fn remove(self) -> Outcome {
        fs::remove_dir_all(&self.directory)
            .map_err(io_failure(format!("remove {}", self.directory.display())))
    }
}

/// Where a guest comes in.
pub(crate) struct Door(UnixListener);

impl Door {
    /// Waits for the guest.
    pub(crate) fn accept(&self) -> Outcome<UnixStream> {
        let patience = Timespec::try_from(PATIENCE).expect("three minutes are a time");
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience));
        let step = || io_failure("wait for the guest");
        if ready.map_err(|error| step()(error.into()))? == 0 {
            return Err(Failure::Check("the guest does not come".to_owned()));
        }
        let (stream, _) = self.0.accept().map_err(step())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(step())?;
        Ok(stream)
    }
}

/// Parameters that make a kernel quicker or slower at the same work.
const TERMS: [&str; 2] = ["mitigations=", "init_on_alloc="];

/// What this computer's kernel was told of [`TERMS`], for a guest whose work is measured against this computer's.
fn equal_terms() -> Outcome<String> {
    let line = fs::read_to_string("/proc/cmdline")
        .map_err(io_failure("read the kernel's command line"))?;
    Ok(line
        .split_whitespace()
        .filter(|word| TERMS.iter().any(|term| word.starts_with(term)))
        .map(|word| format!(" {word}"))
        .collect())
}

fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io_failure(format!("remove {}", path.display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
