//! A file written and read from its beginning to its end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes of one call: what copying programs use.
const BLOCK: usize = 1 << 20;

/// Writes a new file of so many bytes, and returns when they are on the medium.
///
/// # Errors
/// The file cannot be made or written.
pub fn write(path: &Path, mut bytes: u64) -> io::Result<()> {
    // No zeroes: file systems are quick with those.
    let block = vec![0xa5; BLOCK];
    let mut file = File::create(path)?;
    while bytes > 0 {
        let length = usize::try_from(bytes).map_or(BLOCK, |left| left.min(BLOCK));
        file.write_all(&block[..length])?;
        bytes -= length as u64;
    }
    file.sync_data()
}

/// Reads a file, and says how long it is.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

/// Has a file read from its disk when it is read next, and nothing left to be written beside what is measured.
///
/// # Errors
/// Caches cannot be dropped: that takes root.
pub fn forget_caches() -> io::Result<()> {
    rustix::fs::sync();
    // Source: Documentation/admin-guide/sysctl/vm.rst.
    fs::write("/proc/sys/vm/drop_caches", "3\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_as_long_as_was_asked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        for bytes in [0, 1, BLOCK as u64, 3 * BLOCK as u64 + 5] {
            write(&path, bytes).expect("written");
            assert_eq!(read(&path).expect("read"), bytes);
        }
    }
}
