//! The envelope of a state file.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | magic: `SPRTVMM` and a zero |
//! | 8–11 | kind: 1 for a machine's state |
//! | 12–15 | version of the payload |
//! | 16–23 | length of the payload |
//! | 24–55 | BLAKE3 of the 24 bytes before and the payload |
//! | 56– | payload: JSON |
//!
//! Numbers are little-endian. JSON, because it says what is what: a later version reads fields by name, and a
//! person can look at it. The state is some ten KiB for each vCPU, so reading it costs little.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 8] = *b"SPRTVMM\0";
const KIND: u32 = 1;
/// The version that is written. Every version that was ever released is read.
const VERSION: u32 = 1;
pub(super) const HEADER: usize = 24;
pub(super) const CHECKSUM: usize = 32;

/// Longest payload: 32 vCPUs with their registers written out need less than a tenth of it.
pub(super) const MAX_PAYLOAD: u64 = 16 << 20;

/// A file that is not a state of a machine, or not as it was written.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It does not open, or does not read.
    #[error("read state file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("this is not the state of a machine")]
    Alien,
    /// It is of a version that this program does not know.
    #[error("the state is of version {found}, this program knows version {VERSION}")]
    Version {
        /// The version of the file.
        found: u32,
    },
    /// It says of itself that it is larger than any state can be.
    #[error("the state is said to be {length} bytes long, at most {MAX_PAYLOAD} are allowed")]
    TooLong {
        /// What it says.
        length: u64,
    },
    /// It ends too early or too late.
    #[error("the state is cut off or has something behind it")]
    Length,
    /// It is not what was written.
    #[error("the state is damaged: its checksum is wrong")]
    Damaged,
    /// It is what was written, but says nothing that this program can use.
    #[error("the state does not read")]
    Payload(#[source] serde_json::Error),
}

/// Puts a payload into an envelope.
///
/// # Errors
/// The payload cannot be written as JSON, or is longer than what would be read again.
pub(super) fn seal_up<T: Serialize>(payload: &T) -> Result<Vec<u8>, EnvelopeError> {
    let mut bytes = vec![0; HEADER + CHECKSUM];
    serde_json::to_writer(&mut bytes, payload).map_err(EnvelopeError::Payload)?;
    let length = (bytes.len() - HEADER - CHECKSUM) as u64;
    if length > MAX_PAYLOAD {
        return Err(EnvelopeError::TooLong { length });
    }
    fill_in(&mut bytes, length);
    Ok(bytes)
}

/// Writes the header and the checksum before a payload of this length.
pub(super) fn fill_in(bytes: &mut [u8], length: u64) {
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&KIND.to_le_bytes());
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(&bytes[..HEADER], &bytes[HEADER + CHECKSUM..]);
    bytes[HEADER..HEADER + CHECKSUM].copy_from_slice(&checksum);
}

/// Reads a state file.
///
/// # Errors
/// [`EnvelopeError`] says why it is refused.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, EnvelopeError> {
    let failed = |source| EnvelopeError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    unseal(&mut file, failed)
}

pub(super) fn unseal<T: DeserializeOwned>(
    from: &mut impl Read,
    failed: impl Fn(io::Error) -> EnvelopeError,
) -> Result<T, EnvelopeError> {
    let mut head = Vec::with_capacity(HEADER + CHECKSUM);
    from.by_ref()
        .take((HEADER + CHECKSUM) as u64)
        .read_to_end(&mut head)
        .map_err(&failed)?;
    let (header, expected) = head.split_at_checked(HEADER).ok_or(EnvelopeError::Alien)?;
    if header[0..8] != MAGIC || number(&header[8..12]) != u64::from(KIND) {
        return Err(EnvelopeError::Alien);
    }
    let version = number(&header[12..16]);
    if version != u64::from(VERSION) {
        return Err(EnvelopeError::Version {
            found: u32::try_from(version).unwrap_or(u32::MAX),
        });
    }
    let length = number(&header[16..24]);
    if length > MAX_PAYLOAD {
        return Err(EnvelopeError::TooLong { length });
    }
    // One byte more would show that there is something behind it. What is not there is not allocated.
    let mut payload = Vec::new();
    from.take(length + 1)
        .read_to_end(&mut payload)
        .map_err(&failed)?;
    if expected.len() != CHECKSUM || payload.len() as u64 != length {
        return Err(EnvelopeError::Length);
    }
    if checksum(header, &payload) != expected {
        return Err(EnvelopeError::Damaged);
    }
    serde_json::from_slice(&payload).map_err(EnvelopeError::Payload)
}

fn checksum(header: &[u8], payload: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<Vec<u32>, EnvelopeError> {
        unseal(&mut &bytes[..], |source| EnvelopeError::Read {
            path: PathBuf::new(),
            source,
        })
    }

    fn sealed() -> Vec<u8> {
        seal_up(&vec![1_u32, 22, 333]).expect("numbers are JSON")
    }

    #[test]
    fn what_was_put_in_comes_out() {
        assert_eq!(open(&sealed()).expect("it is whole"), [1, 22, 333]);
    }

    #[test]
    fn a_flip_of_any_bit_is_refused() {
        let whole = sealed();
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[position] ^= 1 << bit;
                assert!(open(&bytes).is_err(), "bit {bit} of byte {position}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_early_or_too_late_is_refused() {
        let whole = sealed();
        for length in 0..whole.len() {
            assert!(open(&whole[..length]).is_err(), "{length} bytes");
        }
        let mut longer = whole;
        longer.push(b' ');
        assert!(matches!(open(&longer), Err(EnvelopeError::Length)));
    }

    #[test]
    fn an_unknown_version_is_refused_by_its_number() {
        let mut bytes = sealed();
        bytes[12..16].copy_from_slice(&77_u32.to_le_bytes());
        let checksum = checksum(&bytes[..HEADER], &bytes[HEADER + CHECKSUM..]);
        bytes[HEADER..HEADER + CHECKSUM].copy_from_slice(&checksum);
        assert!(matches!(
            open(&bytes),
            Err(EnvelopeError::Version { found: 77 })
        ));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let mut bytes = sealed();
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(
            open(&bytes),
            Err(EnvelopeError::TooLong { length: u64::MAX })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_and_nothing_else_happens(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            prop_assert!(open(&bytes).is_err());
        }

        #[test]
        fn any_bytes_behind_a_true_magic_are_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut whole = MAGIC.to_vec();
            whole.extend(KIND.to_le_bytes());
            whole.extend(VERSION.to_le_bytes());
            whole.extend(bytes);
            prop_assert!(open(&whole).is_err());
        }
    }
}
