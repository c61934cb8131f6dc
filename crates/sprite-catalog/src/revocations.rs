//! How many tokens were revoked, so that whoever keeps tokens knows when one may not be good any more.
//!
//! Any process may revoke a token while a server runs. A file beside the catalog counts what all of them began to
//! revoke and what they ended: two numbers of 64 bits in the computer's own order, each written by whoever has the
//! right to write the catalog. Its bytes are read from memory in about a microsecond. It is never waited for that they
//! reach the disk: who starts anew keeps no tokens yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::recent::{Edition, Editions};

const BEGUN: u64 = 0;
const ENDED: u64 = 8;
const LENGTH: usize = 16;

/// The file.
#[derive(Debug)]
pub(crate) struct Revocations(File);

/// One that is under way. Dropped without [`Revoking::end`], nobody keeps tokens until the next one has ended or the
/// catalog is opened anew.
#[derive(Debug)]
pub(crate) struct Revoking<'a> {
    of: &'a Revocations,
    number: u64,
}

impl Revocations {
    /// Opens the file, and makes it if there is none.
    ///
    /// # Errors
    /// The file cannot be opened or made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).open(path).map(Self)
    }

    /// Tells that a token is about to be revoked. Only for one who has the right to write the catalog.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn begin(&self) -> io::Result<Revoking<'_>> {
        let number = self.numbers()?.0.wrapping_add(1);
        self.write(BEGUN, number)?;
        Ok(Revoking { of: self, number })
    }

    /// Ends what somebody began and gave up. Only for one who has the right to write the catalog.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.write(ENDED, self.numbers()?.0)
    }

    /// Both numbers: the first is read before the second, so that nothing was begun after what has ended if they are
    /// the same.
    fn numbers(&self) -> io::Result<(u64, u64)> {
        let mut bytes = [0; LENGTH];
        let mut there = 0;
        while there < LENGTH {
            match self.0.read_at(&mut bytes[there..], there as u64)? {
                // A new file is all zeroes.
                0 => break,
                read => there += read,
            }
        }
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(bytes)
        };
        Ok((number(0), number(8)))
    }

    fn write(&self, at: u64, number: u64) -> io::Result<()> {
        self.0.write_all_at(&number.to_ne_bytes(), at)
    }
}

impl Revoking<'_> {
    /// Tells that it has ended, either way.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn end(self) -> io::Result<()> {
        // Late, it says less than somebody else has said, which makes nothing good that is not.
        self.of.write(ENDED, self.number)
    }
}

impl Editions for Revocations {
    fn edition(&self) -> Option<Edition> {
        let (begun, ended) = self.numbers().ok()?;
        (begun == ended).then_some(Edition(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_revokes_another_sees() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("revocations");
        let server = Revocations::open(&path).expect("open");
        let tool = Revocations::open(&path).expect("open again");
        assert_eq!(server.edition(), Some(Edition(0)));
        let revoking = tool.begin().expect("begin");
        assert_eq!(server.edition(), None, "it may be either");
        revoking.end().expect("end");
        assert_eq!(server.edition(), Some(Edition(1)));
        assert_eq!(tool.edition(), Some(Edition(1)));
    }

    #[test]
    fn one_that_never_ends_is_followed_by_one_that_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("revocations");
        let file = Revocations::open(&path).expect("open");
        let killed = file.begin().expect("begin");
        let next = file.begin().expect("begin");
        assert_eq!(file.edition(), None);
        next.end().expect("end");
        assert_eq!(file.edition(), Some(Edition(2)));
        killed.end().expect("end late");
        assert_eq!(file.edition(), None);
        file.settle().expect("settle");
        assert_eq!(file.edition(), Some(Edition(2)));
    }
}
