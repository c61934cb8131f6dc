//! A root file system from a tarball that nobody vouches for.
//!
//! Two programs do it, and neither can reach the host. The decompressor runs as nobody. `tar` runs as root, because
//! the files have several owners, but with a root directory of its own in which there is nothing but the host's
//! programs, read-only, and the directory to fill; without a network; and with the few capabilities that making
//! files takes. An archive that leads out of its directory by `..`, absolute names or links finds nothing there.
//! The bytes go through this process, which counts them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::recipe::digest;
use crate::cache::WorkDirectory;
use crate::progress::Progress;
use crate::tool::{self, Tool, ToolError};

const SCRIPT: &str = include_str!("extract.sh");

/// Most bytes that a tarball may have after decompression. Files of 80 GB fit in an image of 100 GB.
const MOST_BYTES: u64 = 80 << 30;

/// Memory that the decompressor may use; the strongest presets of xz and zstd need less.
const DECOMPRESSOR_MEMORY: &str = "--memlimit-decompress=1GiB";

/// Why a tarball could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A program is missing or failed; for `tar` its last words name the member.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no tarball of a kind that we know.
    #[error("it is no tarball: neither plain nor compressed by gzip, xz or zstd")]
    UnknownFormat,
    /// The decompressor says that the file is damaged, or could not be listened to.
    #[error("decompress it with {tool}: {said}")]
    Damaged {
        /// The decompressor.
        tool: &'static str,
        /// What it said.
        said: String,
    },
    /// More content than fits.
    #[error("it has more than {limit} bytes of content")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Somebody wrote to it while it was read.
    #[error("it changed while it was read")]
    Changed,
}

/// How a tarball is packed, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// Source: RFC 1952; the xz file format; RFC 8878; POSIX pax (`ustar` at byte 257).
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => (head.get(257..262) == Some(b"ustar")).then_some(Self::Plain),
        }
    }

    /// What unpacks it, and with which arguments.
    fn decompressor(self) -> Option<(Tool, &'static [&'static str])> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some((tool::GZIP, &["-dc"])),
            Self::Xz => Some((tool::XZ, &["-dcq", DECOMPRESSOR_MEMORY])),
            Self::Zstd => Some((tool::ZSTD, &["-dcq", "--memory=1024MiB"])),
        }
    }
}

/// What is missing for [`extract`]. A tarball that cannot be read is not this one's to tell.
pub(super) fn missing_tools(tarball: &Path) -> Vec<ToolError> {
    let packing = read_packing(tarball).ok().flatten();
    let unpacks = packing.and_then(Packing::decompressor);
    let tools = unpacks.map(|(tool, _)| tool).into_iter();
    tools
        .chain([tool::TAR, tool::SETPRIV, tool::SHELL])
        .filter_map(|tool| tool.find().err())
        .collect()
}

/// Extracts the tarball into the work directory's tree.
pub(super) fn extract(
    tarball: &Path,
    expected: &str,
    work: &WorkDirectory,
    progress: &dyn Progress,
) -> Result<(), ExtractError> {
    progress.step("extract the tarball");
    let failed = |path: &Path, source| ExtractError::File {
        path: path.to_owned(),
        source,
    };
    let packing = read_packing(tarball).map_err(|source| failed(tarball, source))?;
    let packing = packing.ok_or(ExtractError::UnknownFormat)?;
    let limit = limit(work.path()).map_err(|source| failed(work.path(), source))?;
    let tar = tar_command(work)?;
    let file = File::open(tarball).map_err(|source| failed(tarball, source))?;
    match packing.decompressor() {
        None => settle(feed(file, tar, limit, progress)?, limit)?,
        Some((tool, arguments)) => {
            let mut unpacked = start_decompressor(tool, arguments, file)?;
            let stdout = unpacked.stdout.take().expect("it was asked to be piped");
            let fed = feed(stdout, tar, limit, progress);
            let ended = finish_decompressor(tool, unpacked);
            let fed = fed?;
            match fed.poured {
                // Its damage explains why tar found an end too early, so it is told first.
                Poured::All => ended?,
                // It was not heard to its end, so that its end says nothing.
                Poured::UpToLimit | Poured::Unheard => {}
            }
            settle(fed, limit)?;
        }
    }
    // The id is the hash of what was to be read.
    let read = digest(tarball).map_err(|source| failed(tarball, source))?;
    if read == expected {
        Ok(())
    } else {
        Err(ExtractError::Changed)
    }
}

fn read_packing(tarball: &Path) -> io::Result<Option<Packing>> {
    let mut head = Vec::new();
    File::open(tarball)?.take(512).read_to_end(&mut head)?;
    Ok(Packing::of(&head))
}

/// What may be extracted: leaves half of the free space for the image and for others.
fn limit(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(MOST_BYTES.min(stat.f_bavail.saturating_mul(stat.f_frsize) / 2))
}

fn tar_command(work: &WorkDirectory) -> Result<Command, ExtractError> {
    let shell = tool::SHELL.find()?;
    tool::TAR.find()?;
    let (script, stage) = (work.path().join("extract.sh"), work.path().join("stage"));
    fs::write(&script, SCRIPT)
        .and_then(|()| fs::create_dir(work.tree()))
        .and_then(|()| fs::create_dir(&stage))
        .map_err(|source| ExtractError::File {
            path: script.clone(),
            source,
        })?;
    let mut command = tool::confined(shell.as_os_str(), &["--net", "--uts"])?;
    command.arg(script).arg(work.tree()).arg(stage);
    Ok(command)
}

fn start_decompressor(
    tool: Tool,
    arguments: &[&str],
    tarball: File,
) -> Result<Child, ExtractError> {
    let mut command = tool::SETPRIV.command()?;
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
    ]);
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL"]);
    command.arg(tool.find()?).args(arguments);
    command
        .stdin(tarball)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = command.spawn();
    started.map_err(|source| {
        ToolError::Run {
            tool: tool.name(),
            source,
        }
        .into()
    })
}

fn finish_decompressor(tool: Tool, mut child: Child) -> Result<(), ExtractError> {
    const MOST_WORDS: u64 = 2000;
    let damaged = |said| ExtractError::Damaged {
        tool: tool.name(),
        said,
    };
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr
            .take(MOST_WORDS)
            .read_to_end(&mut said)
            .map_err(|error| damaged(error.to_string()))?;
    }
    let status = child.wait().map_err(|error| damaged(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(damaged(format!(
        "{status} {}",
        String::from_utf8_lossy(&said).trim()
    )))
}

/// How both ends of the way from the decompressor to `tar` ended.
struct Fed {
    poured: Poured,
    extracted: Result<(), ToolError>,
}

#[derive(Debug, PartialEq, Eq)]
enum Poured {
    All,
    UpToLimit,
    /// `tar` stopped reading before the end.
    Unheard,
}

fn settle(fed: Fed, limit: u64) -> Result<(), ExtractError> {
    match fed.poured {
        Poured::UpToLimit => Err(ExtractError::TooLarge { limit }),
        Poured::All | Poured::Unheard => Ok(fed.extracted?),
    }
}

/// Gives `tar` what it is to extract, up to `limit` bytes.
fn feed(
    from: impl Read + Send,
    mut tar: Command,
    limit: u64,
    progress: &dyn Progress,
) -> Result<Fed, ExtractError> {
    let failed = |source| ToolError::Run {
        tool: tool::TAR.name(),
        source,
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    tar.stdin(reader);
    thread::scope(|scope| {
        let count = scope.spawn(move || pour(from, writer, limit));
        let extracted = tool::TAR.run(tar, progress);
        let poured = count
            .join()
            .expect("copying does not panic")
            .map_err(failed)?;
        Ok(Fed { poured, extracted })
    })
}

fn pour(mut from: impl Read, mut to: impl Write, limit: u64) -> io::Result<Poured> {
    let mut buffer = vec![0; 1 << 18];
    let mut left = limit;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(Poured::All),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(rest) = left.checked_sub(count as u64) else {
            return Ok(Poured::UpToLimit);
        };
        left = rest;
        match to.write_all(&buffer[..count]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Poured::Unheard),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_are_told_by_their_first_bytes() {
        let mut plain = vec![0; 512];
        plain[257..262].copy_from_slice(b"ustar");
        assert_eq!(Packing::of(&plain), Some(Packing::Plain));
        assert_eq!(Packing::of(&[0x1f, 0x8b, 8]), Some(Packing::Gzip));
        assert_eq!(Packing::of(b"\xfd7zXZ\0..."), Some(Packing::Xz));
        assert_eq!(
            Packing::of(&[0x28, 0xb5, 0x2f, 0xfd, 0]),
            Some(Packing::Zstd)
        );
        for other in [&b""[..], b"PK\x03\x04", &[0; 512]] {
            assert_eq!(Packing::of(other), None);
        }
    }

    #[test]
    fn the_limit_is_the_last_byte_that_passes() {
        let mut out = Vec::new();
        assert_eq!(pour(&[1; 10][..], &mut out, 10).expect("room"), Poured::All);
        assert_eq!(out.len(), 10);
        assert_eq!(
            pour(&[1; 11][..], io::sink(), 10).expect("room"),
            Poured::UpToLimit
        );
    }
}
