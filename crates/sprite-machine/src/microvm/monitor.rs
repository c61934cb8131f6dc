//! Whether a program that an operator gives can be the monitor of machines: known before any sprite waits for it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Any monitor says its version at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What it calls itself, and the oldest version with all that the driver asks for.
const KNOWN: &[(&str, (u32, u32))] = &[("Firecracker", (1, 12)), ("sprite-vmm", (0, 0))];

/// Source: elf(5).
const ELF: &[u8] = b"\x7fELF\x02\x01";
const INTERPRETER: u32 = 3;
const EXECUTABLE: u32 = 0o111;

/// The name and version of a monitor, as it says them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Its name.
    pub name: String,
    /// Its version, without a leading `v`.
    pub version: String,
}

/// Why a program cannot be the monitor.
#[derive(Debug, thiserror::Error)]
pub enum UnfitMonitor {
    /// It is not there, or cannot be read.
    #[error("read the program")]
    Read(#[source] io::Error),
    /// It may not be started.
    #[error("it is no file that may be executed")]
    NotExecutable,
    /// It is not one that this processor runs: a script, perhaps.
    #[error("it is no program of 64 bits")]
    NoProgram,
    /// It needs libraries, and there are none where it runs.
    #[error("it is linked to libraries, which a jail does not have")]
    Linked,
    /// It does not start, or does not end.
    #[error("ask it for its version")]
    Ask(#[source] io::Error),
    /// It is something else.
    #[error("it calls itself {said:?}, which is no monitor that the driver knows")]
    Unknown {
        /// The beginning of what it said.
        said: String,
    },
    /// It lacks what the driver asks for.
    #[error("{} {} is too old: {}.{} or newer is needed", monitor.name, monitor.version, oldest.0, oldest.1)]
    Old {
        /// What it is.
        monitor: Monitor,
        /// The oldest that will do.
        oldest: (u32, u32),
    },
}

impl UnfitMonitor {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => {
                "give the path of the monitor to --vmm, or leave --vmm out to use the built-in one"
            }
            Self::NotExecutable => "chmod 0755 it, or leave --vmm out to use the built-in one",
            Self::NoProgram | Self::Unknown { .. } | Self::Ask(_) => {
                "give --vmm the program of Firecracker 1.12 or newer, or leave it out to use the built-in one"
            }
            Self::Linked => "use a statically linked build, as Firecracker's releases are",
            Self::Old { .. } => "take a newer release, or leave --vmm out to use the built-in one",
        }
    }
}

/// Looks at a program, and asks it for its version: starts it once, with nothing but that question.
///
/// # Errors
/// What keeps it from being the monitor of machines.
///
/// # Cancel safety
/// The program is killed when this is dropped.
pub async fn examine(path: &Path) -> Result<Monitor, UnfitMonitor> {
    let about = fs::metadata(path).map_err(UnfitMonitor::Read)?;
    if !about.is_file() || about.permissions().mode() & EXECUTABLE == 0 {
        return Err(UnfitMonitor::NotExecutable);
    }
    let file = File::open(path).map_err(UnfitMonitor::Read)?;
    match has_interpreter(&file).map_err(UnfitMonitor::Read)? {
        None => return Err(UnfitMonitor::NoProgram),
        Some(true) => return Err(UnfitMonitor::Linked),
        Some(false) => {}
    }
    let asked = Command::new(path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(ANSWER_WITHIN, asked)
        .await
        .map_err(|_| UnfitMonitor::Ask(io::ErrorKind::TimedOut.into()))?
        .map_err(UnfitMonitor::Ask)?;
    judge(&String::from_utf8_lossy(&answer.stdout))
}

/// Whether the program is started by another one, which finds its libraries; `None` if it is no ELF of 64 bits.
fn has_interpreter(file: &File) -> io::Result<Option<bool>> {
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if !header.starts_with(ELF) {
        return Ok(None);
    }
    let short = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let mut place = [0; 8];
    place.copy_from_slice(&header[32..40]);
    let (place, size, number) = (u64::from_le_bytes(place), short(54), short(56));
    for index in 0..number {
        let mut kind = [0; 4];
        let at = place.saturating_add(index * size);
        match file.read_exact_at(&mut kind, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// Reads `NAME vMAJOR.MINOR.PATCH` in the first line.
fn judge(said: &str) -> Result<Monitor, UnfitMonitor> {
    let line = said.lines().next().unwrap_or_default();
    let unknown = || UnfitMonitor::Unknown {
        said: line.chars().take(80).collect(),
    };
    let mut words = line.split_ascii_whitespace();
    let (name, version) = words.next().zip(words.next()).ok_or_else(unknown)?;
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    let (_, oldest) = known.ok_or_else(unknown)?;
    let version = version.trim_start_matches('v');
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(unknown());
    };
    let monitor = Monitor {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    if (major, minor) < *oldest {
        let oldest = *oldest;
        return Err(UnfitMonitor::Old { monitor, oldest });
    }
    Ok(monitor)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        for (said, fit) in [
            ("Firecracker v1.12.0\n\n", true),
            ("Firecracker v1.9.1\n", false),
            ("Firecracker v2.0.0-dev\nmore", true),
            ("sprite-vmm 0.1.0\n", true),
            ("QEMU emulator version 10.0.2", false),
            ("Firecracker", false),
            ("Firecracker vX.Y", false),
            ("", false),
        ] {
            assert_eq!(judge(said).is_ok(), fit, "{said}");
        }
    }

    #[tokio::test]
    async fn programs_that_need_libraries_and_files_that_are_none_are_refused() {
        // This very test is linked to libraries, on every target that has them.
        let own = std::env::current_exe().expect("this program");
        let unfit = examine(&own).await.expect_err("it is no monitor");
        assert!(
            matches!(unfit, UnfitMonitor::Linked | UnfitMonitor::Unknown { .. }),
            "{unfit}"
        );
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\necho Firecracker v1.12.0\n").expect("a file");
        let unfit = examine(&script).await.expect_err("not executable");
        assert!(matches!(unfit, UnfitMonitor::NotExecutable), "{unfit}");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("our file");
        let unfit = examine(&script).await.expect_err("a script");
        assert!(matches!(unfit, UnfitMonitor::NoProgram), "{unfit}");
        let absent = examine(&directory.path().join("absent")).await;
        assert!(matches!(absent, Err(UnfitMonitor::Read(_))));
    }

    proptest! {
        #[test]
        fn any_words_and_any_file_are_judged(said: String, bytes: Vec<u8>, elf: bool) {
            let _ = judge(&said);
            let _ = judge(&format!("Firecracker v{said}"));
            let mut file = tempfile::tempfile().expect("a file");
            if elf {
                file.write_all(ELF).expect("written");
            }
            file.write_all(&bytes).expect("written");
            let _ = has_interpreter(&file);
        }
    }
}
