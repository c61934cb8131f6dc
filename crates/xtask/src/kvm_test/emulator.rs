//! One start of the box: the emulator's process, its consoles, its time, and its end.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::interrupt;
use crate::kvm_test::outer::Outer;
use crate::program::Program;

/// Memory of the box, as long as the computer has twice as much.
const MEMORY_MIB: u64 = 6144;

/// Emulators of several processors lose a race now and then when a kernel changes its own code; with one there is
/// nobody to race with.
const PROCESSORS: usize = 1;

/// How many of the kernel's last lines are repeated when the box fails.
const REPEATED_LINES: usize = 30;

/// Why a feature of the processor's model is not there; it says so on each start.
const EXPECTED: &str = "TCG doesn't support requested feature";

/// The kernel's command line: what it would do against attacks, and to show its work, is slow when emulated. The
/// time stamp counter is the computer's own, and reading it is the quickest clock there is; distrusted, it is left
/// in the middle of the boot, by a change of the kernel's own code (see [`panicked`]).
const KERNEL: &str = "console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0 tsc=reliable";

/// The last words of a kernel.
const PANIC: &str = "Kernel panic - not syncing";

/// Who reads what is said in the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// It is repeated on standard error.
    Repeated,
    /// The person's terminal is the box's.
    Persons,
}

/// The disks of a start.
#[derive(Debug)]
pub struct Disks {
    /// What is brought.
    pub brought: PathBuf,
    /// What is taken home.
    pub taken: PathBuf,
}

/// What the reader of the emulator's output learns.
enum Event {
    /// A line.
    Said(String),
    Ended,
    Interrupted,
}

/// Runs the box until it turns itself off.
///
/// # Errors
/// The emulator does not start or fails, the time is over, or the person interrupted; the emulator is gone then.
pub fn run(
    outer: &Outer,
    disks: &Disks,
    work: &Path,
    terminal: Terminal,
    limit: Duration,
) -> Outcome {
    let program = command(outer, disks, work);
    match terminal {
        Terminal::Persons => {
            let kept = Program::new("stty").args(["-g"]).at_terminal()?;
            Program::new("stty").args(["raw", "-echo"]).at_terminal()?;
            let ran = program.run();
            Program::new("stty").args([kept.trim()]).at_terminal()?;
            ran
        }
        Terminal::Repeated => watch(program.own_group(), limit),
    }
}

/// The kernel's log of a start.
pub fn console(work: &Path) -> PathBuf {
    work.join("console")
}

/// Whether the outer kernel gave up. Emulators of several processors lose a race now and then when a kernel changes
/// its own code: one of them runs the breakpoint that stood there for a moment. What runs in the box is not to blame.
pub fn panicked(work: &Path) -> bool {
    let text = std::fs::read(console(work)).unwrap_or_default();
    String::from_utf8_lossy(&text).contains(PANIC)
}

/// The kernel's last lines, for a failure.
pub fn last_lines(work: &Path) -> String {
    let text = std::fs::read(console(work)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(REPEATED_LINES)..].join("\n")
}

fn watch(program: Program, limit: Duration) -> Outcome {
    let (tell, told) = channel();
    let interrupted = tell.clone();
    interrupt::subscribe(move || {
        // Nobody listens any more once the box is off.
        let _ = interrupted.send(Event::Interrupted);
    });
    interrupt::check()?;
    let shown = program.shown();
    let deadline = Instant::now() + limit;
    let mut emulator = program.spawn_piped()?;
    let stdout = emulator
        .stdout
        .take()
        .expect("stdout was asked for as a pipe");
    let stderr = emulator
        .stderr
        .take()
        .expect("stderr was asked for as a pipe");
    let complaints = tell.clone();
    std::thread::spawn(move || {
        follow(stderr, |line| {
            if !line.contains(EXPECTED) {
                let _ = complaints.send(Event::Said(line));
            }
        })
    });
    std::thread::spawn(move || {
        follow(stdout, |line| {
            let _ = tell.send(Event::Said(line));
        });
        let _ = tell.send(Event::Ended);
    });
    let ended = loop {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Said(line)) => eprintln!("  {line}"),
            Ok(Event::Ended) => break Ok(()),
            Ok(Event::Interrupted) => break Err(Failure::Interrupted),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                break Err(Failure::Check(format!(
                    "the box was not done within {} s and was turned off",
                    limit.as_secs()
                )));
            }
        }
    };
    if ended.is_err() {
        // It may have ended in this moment.
        let _ = emulator.kill();
    }
    let status = emulator
        .wait()
        .map_err(Failure::io(format!("wait for `{shown}`")))?;
    ended?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Check(format!("the emulator ended with {status}")))
    }
}

fn follow(from: impl Read, mut each: impl FnMut(String)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
        each(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The emulator ends with this process, however that ends.
fn command(outer: &Outer, disks: &Disks, work: &Path) -> Program {
    let disk = |path: &Path, options: &str| {
        // A comma ends a path there, unless it is doubled.
        let path = path.display().to_string().replace(',', ",,");
        format!("file={path},format=raw,if=virtio,{options}")
    };
    let memory = memory_mib();
    Program::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-M", "q35", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "EPYC,+svm,+npt"])
        .args(["-smp", &PROCESSORS.to_string(), "-m", &memory.to_string()])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ])
        .args(["-kernel"])
        .args([&outer.kernel])
        .args(["-initrd"])
        .args([&outer.initramfs])
        .args(["-append", KERNEL])
        .args(["-drive", &disk(&outer.root, "snapshot=on")])
        .args(["-drive", &disk(&disks.brought, "snapshot=on")])
        .args(["-drive", &disk(&disks.taken, "cache=unsafe")])
        .args(["-chardev"])
        .args([format!("file,id=log,path={}", console(work).display())])
        .args(["-serial", "chardev:log"])
        .args(["-chardev", "stdio,id=terminal,signal=off"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-device", "virtconsole,chardev=terminal"])
        .args(["-nic", "user,model=virtio-net-pci"])
        // What the root file system is changed to lies beside the rest of this start.
        .env("TMPDIR", work)
}

/// Half of what is free, if that is less than the usual.
fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    available.map_or(MEMORY_MIB, |kib| (kib / 1024 / 2).min(MEMORY_MIB))
}
