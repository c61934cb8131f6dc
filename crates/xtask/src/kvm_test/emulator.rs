//! One start of the box: the emulator's process, its consoles, its time, and its end.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::interrupt;
use crate::kvm_test::outer::Outer;
use crate::program::Program;

/// Memory of a box, as long as this computer has twice as much.
const MEMORY_MIB: u64 = 6144;

/// More would be quicker, and fails: where several emulated processors run, one of them now and then finds the
/// breakpoint that stands for a moment where a kernel changes its own code, and that kernel gives up. KVM changes
/// code with each first machine. Where there is work for more, there are more boxes.
const PROCESSORS: &str = "1";

/// An emulator that has not used its processor for so long emulates none any more: even a kernel with nothing to do
/// looks at its clocks.
const STANDS_STILL_AFTER: Duration = Duration::from_secs(60);

/// The last words of a kernel.
const PANIC: &str = "Kernel panic - not syncing";

/// How many of the kernel's last lines are repeated when the box fails.
const REPEATED_LINES: usize = 30;

/// Why a feature of the processor's model is not there; it says so on each start.
const EXPECTED: &str = "TCG doesn't support requested feature";

/// The kernel's command line: what it would do against attacks, and to show its work, is slow when emulated. The
/// time stamp counter is the computer's own, and reading it is the quickest clock there is; distrusted, it is left
/// in the middle of the boot, by a change of the kernel's own code (see [`Lane::panicked`]).
const KERNEL: &str = "console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0 tsc=reliable";

/// Who reads what is said in the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// It is repeated on standard error.
    Repeated,
    /// The person's terminal is the box's.
    Persons,
}

/// One box among those that run side by side.
#[derive(Debug)]
pub struct Lane<'a> {
    /// Its number, from 1. Programs in it find it in their environment, as `lane`.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// What is brought; nothing is written to it.
    pub brought: &'a Path,
    /// A directory for what is the box's own.
    pub work: PathBuf,
}

impl Lane<'_> {
    /// The disk of what is taken home.
    pub fn taken(&self) -> PathBuf {
        self.work.join("taken.img")
    }

    /// An empty disk for data.
    pub fn data(&self) -> PathBuf {
        self.work.join("data.img")
    }

    /// The kernel's log.
    pub fn console(&self) -> PathBuf {
        self.work.join("console")
    }

    /// Whether its kernel gave up, by no fault of what ran there: an emulated processor may still find what another
    /// one was about to change.
    pub fn panicked(&self) -> bool {
        self.said().contains(PANIC)
    }

    /// The kernel's last lines, for a failure.
    pub fn last_lines(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(REPEATED_LINES)..].join("\n")
    }

    fn said(&self) -> String {
        let text = std::fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// What the reader of the emulator's output learns.
enum Event {
    /// A line.
    Said(String),
    Ended,
    Interrupted,
}

/// How a box ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It turned itself off.
    Off,
    /// The emulated processor stood still, and was turned off.
    Still,
}

/// Runs the box until it turns itself off.
///
/// # Errors
/// The emulator does not start or fails, the time is over, or the person interrupted; the emulator is gone then.
pub fn run(outer: &Outer, lane: &Lane<'_>, terminal: Terminal, limit: Duration) -> Outcome<End> {
    let program = command(outer, lane);
    match terminal {
        Terminal::Persons => {
            let kept = Program::new("stty").args(["-g"]).at_terminal()?;
            Program::new("stty").args(["raw", "-echo"]).at_terminal()?;
            let ran = program.run();
            Program::new("stty").args([kept.trim()]).at_terminal()?;
            ran.map(|()| End::Off)
        }
        Terminal::Repeated => watch(program.own_group(), lane, limit),
    }
}

fn watch(program: Program, lane: &Lane<'_>, limit: Duration) -> Outcome<End> {
    let prefix = match lane.of {
        1 => String::new(),
        _ => format!("{} |", lane.number),
    };
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
    let mut used = None;
    let ended = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left.min(STANDS_STILL_AFTER)) {
            Ok(Event::Said(line)) => {
                used = None;
                eprintln!("{prefix}  {line}");
            }
            Ok(Event::Ended) => break Ok(End::Off),
            Ok(Event::Interrupted) => break Err(Failure::Interrupted),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                let now = processor_time(emulator.id());
                if now.is_some() && now == used {
                    break Ok(End::Still);
                }
                used = now;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                break Err(Failure::Check(format!(
                    "the box was not done within {} s and was turned off",
                    limit.as_secs()
                )));
            }
        }
    };
    if !matches!(ended, Ok(End::Off)) {
        // It may have ended in this moment.
        let _ = emulator.kill();
    }
    let status = emulator
        .wait()
        .map_err(Failure::io(format!("wait for `{shown}`")))?;
    let ended = ended?;
    if status.success() || ended == End::Still {
        Ok(ended)
    } else {
        Err(Failure::Check(format!("the emulator ended with {status}")))
    }
}

/// The processor time that a process has used, in the kernel's ticks, as text.
fn processor_time(process: u32) -> Option<[String; 2]> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may have anything in it. Source: proc_pid_stat(5), utime and stime.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some([fields.next()?.to_owned(), fields.next()?.to_owned()])
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
fn command(outer: &Outer, lane: &Lane<'_>) -> Program {
    let disk = |path: &Path, options: &str| {
        // A comma ends a path there, unless it is doubled.
        let path = path.display().to_string().replace(',', ",,");
        format!("file={path},format=raw,if=virtio,{options}")
    };
    let memory = memory_mib(lane.of);
    let kernel = format!("{KERNEL} lane={}", lane.number);
    Program::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-M", "q35", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "EPYC,+svm,+npt"])
        .args(["-smp", PROCESSORS, "-m", &memory.to_string()])
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
        .args(["-append", &kernel])
        .args(["-drive", &disk(&outer.root, "snapshot=on")])
        .args(["-drive", &disk(lane.brought, "snapshot=on")])
        .args(["-drive", &disk(&lane.taken(), "cache=unsafe")])
        .args(["-drive", &disk(&lane.data(), "cache=unsafe,discard=unmap")])
        .args(["-chardev"])
        .args([format!("file,id=log,path={}", lane.console().display())])
        .args(["-serial", "chardev:log"])
        .args(["-chardev", "stdio,id=terminal,signal=off"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-device", "virtconsole,chardev=terminal"])
        .args(["-nic", "user,model=virtio-net-pci"])
        // What the root file system is changed to lies beside the rest of this start.
        .env("TMPDIR", &lane.work)
}

/// Half of what is free, shared by all boxes, if that is less than the usual.
fn memory_mib(boxes: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    let share = |kib: u64| kib / 1024 / 2 / boxes as u64;
    available.map_or(MEMORY_MIB, |kib| share(kib).min(MEMORY_MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_passes_while_something_is_done() {
        let own = || processor_time(std::process::id()).expect("this process");
        let before = own();
        let begun = Instant::now();
        // Two ticks of the slowest kernel.
        while begun.elapsed() < Duration::from_millis(50) {}
        assert_ne!(own(), before);
        assert!(own().iter().all(|ticks| ticks.parse::<u64>().is_ok()));
    }
}
