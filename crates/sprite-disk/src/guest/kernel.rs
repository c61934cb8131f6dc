//! The kernel's own program out of the file that boot loaders start.
//!
//! Distributions ship a kernel packed, behind code that unpacks it. A machine monitor starts the unpacked program
//! by itself, which saves the time in every boot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::progress::Progress;
use crate::tool::{self, Tool, ToolError};

// Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const SETUP_SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const PROTOCOL_AT: usize = 0x206;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;

/// The first boot protocol that says where the packed program is.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// Longest kernel, packed or not; more is damage.
const LONGEST: u64 = 512 << 20;

/// Why the kernel could not be had from its package.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file could not be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no kernel that we know how to unpack.
    #[error("{path} is no kernel that can be unpacked: {reason}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The program that unpacks it failed.
    #[error("unpack the kernel")]
    Unpack(#[from] ToolError),
}

/// How the program is packed. All but gzip are followed by four bytes: the length unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// Source: RFC 1952; the xz file format; RFC 8878.
    fn of(payload: &[u8]) -> Option<Self> {
        match payload {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The program that unpacks a file in its place, its arguments, and how such a file's name ends.
    fn tool(self) -> (Tool, &'static [&'static str], &'static str) {
        match self {
            Self::Gzip => (tool::GZIP, &["-dq"], "gz"),
            Self::Xz => (tool::XZ, &["-dq"], "xz"),
            Self::Zstd => (tool::ZSTD, &["-dq", "--rm", "--memory=256MiB"], "zst"),
        }
    }
}

/// The packed program and the length that it has unpacked.
#[derive(Debug)]
struct Payload<'a> {
    packing: Packing,
    packed: &'a [u8],
    unpacked_length: u32,
}

/// Unpacks the kernel `vmlinuz` to `vmlinux`, which must not exist.
pub(super) fn unpack(
    vmlinuz: &Path,
    vmlinux: &Path,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    let failed = |path: &Path, source| KernelError::File {
        path: path.to_owned(),
        source,
    };
    let unknown = |reason| KernelError::Unknown {
        path: vmlinuz.to_owned(),
        reason,
    };
    let length = fs::metadata(vmlinuz)
        .map_err(|source| failed(vmlinuz, source))?
        .len();
    if length > LONGEST {
        return Err(unknown("it is too long"));
    }
    let image = fs::read(vmlinuz).map_err(|source| failed(vmlinuz, source))?;
    let payload = find_payload(&image).map_err(unknown)?;
    if u64::from(payload.unpacked_length) > LONGEST {
        return Err(unknown("it would be too long"));
    }
    let (tool, arguments, suffix) = payload.packing.tool();
    let packed = vmlinux.with_extension(suffix);
    fs::write(&packed, payload.packed).map_err(|source| failed(&packed, source))?;
    let mut command = tool.command()?;
    command.args(arguments).arg(&packed);
    tool.run(command, progress)?;
    let mut program = fs::File::open(vmlinux).map_err(|source| failed(vmlinux, source))?;
    let unpacked = program
        .metadata()
        .map_err(|source| failed(vmlinux, source))?
        .len();
    let mut magic = [0; 4];
    io::Read::read_exact(&mut program, &mut magic).map_err(|source| failed(vmlinux, source))?;
    if unpacked != u64::from(payload.unpacked_length) || &magic != b"\x7fELF" {
        return Err(unknown("what is in it is not the program that it promises"));
    }
    Ok(())
}

fn find_payload(image: &[u8]) -> Result<Payload<'_>, &'static str> {
    const SHORT: &str = "it ends too early";
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).ok_or(SHORT)?;
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(word).map_err(|_| SHORT)
    };
    if image.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
        return Err("it has no header of the boot protocol");
    }
    let protocol = image.get(PROTOCOL_AT..PROTOCOL_AT + 2).ok_or(SHORT)?;
    if u16::from_le_bytes([protocol[0], protocol[1]]) < PROTOCOL_WITH_PAYLOAD {
        return Err("its boot protocol is too old");
    }
    // For compatibility, no sectors stand for four.
    let sectors = match image.get(SETUP_SECTORS_AT).ok_or(SHORT)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (sectors + 1) * 512 + word(PAYLOAD_OFFSET_AT)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH_AT)?).ok_or(SHORT)?;
    let payload = image.get(start..end).ok_or(SHORT)?;
    let packing = Packing::of(payload).ok_or("it is packed neither by gzip, xz nor zstd")?;
    let (stream, length) = payload.split_last_chunk::<4>().ok_or(SHORT)?;
    let packed = match packing {
        // The stream itself ends with the length. Source: RFC 1952, ISIZE.
        Packing::Gzip => payload,
        Packing::Xz | Packing::Zstd => stream,
    };
    Ok(Payload {
        packing,
        packed,
        unpacked_length: u32::from_le_bytes(*length),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::progress::Silent;

    /// A boot file of a kernel whose program is `payload`, with the length appended that packers append.
    fn boot_file(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 100];
        image[SETUP_SECTORS_AT] = 2;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        image[PROTOCOL_AT..PROTOCOL_AT + 2].copy_from_slice(&0x020fu16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].copy_from_slice(&100u32.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("short");
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"a signature may follow");
        image
    }

    fn pack(tool: &str, content: &[u8]) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("content");
        fs::write(&file, content).expect("a file");
        let output = Command::new(tool)
            .args(["-c", "-q"])
            .arg(&file)
            .stderr(Stdio::inherit())
            .output();
        output.expect("the packer is there").stdout
    }

    #[test]
    fn a_kernel_comes_out_as_it_went_in() {
        let program = [b"\x7fELF".as_slice(), &[7; 100_000]].concat();
        let length = u32::try_from(program.len()).expect("short").to_le_bytes();
        for tool in ["gzip", "xz", "zstd"] {
            let mut payload = pack(tool, &program);
            if tool != "gzip" {
                payload.extend_from_slice(&length);
            }
            let directory = tempfile::tempdir().expect("a directory");
            let vmlinuz = directory.path().join("vmlinuz");
            let vmlinux = directory.path().join("vmlinux");
            fs::write(&vmlinuz, boot_file(&payload)).expect("a file");
            unpack(&vmlinuz, &vmlinux, &Silent).expect(tool);
            assert_eq!(fs::read(&vmlinux).expect("the kernel"), program, "{tool}");
            assert_eq!(
                fs::read_dir(directory.path()).expect("it").count(),
                2,
                "{tool}"
            );
        }
    }

    #[test]
    fn another_length_or_content_than_promised_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (vmlinuz, vmlinux) = (directory.path().join("a"), directory.path().join("b"));
        for content in [&b"\x7fELF and more"[..], b"no program at all"] {
            let mut payload = pack("zstd", content);
            payload.extend_from_slice(&12u32.to_le_bytes());
            fs::write(&vmlinuz, boot_file(&payload)).expect("a file");
            let refused = unpack(&vmlinuz, &vmlinux, &Silent);
            assert!(
                matches!(refused, Err(KernelError::Unknown { .. })),
                "{refused:?}"
            );
            fs::remove_file(&vmlinux).expect("what came out");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_are_refused_or_read(
            image in proptest::collection::vec(any::<u8>(), 0..4000),
            at in 0usize..4000, header: bool,
        ) {
            let mut image = image;
            if header && image.len() > MAGIC_AT + 4 {
                image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
            }
            let _ = find_payload(&image);
            let whole = boot_file(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4]);
            let _ = find_payload(&whole[..at.min(whole.len())]);
        }
    }
}
