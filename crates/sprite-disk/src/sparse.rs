//! Copying sparse files without writing their holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// Holes shorter than this are written as zeros. Each piece of a file costs every later clone 10 to 25 µs, for
/// ever; 128 KiB of zeros cost once.
const SHORTEST_HOLE: u64 = 128 << 10;

/// Makes `to`, an empty file, equal to `from`: by reflink where both are on one file system that can, else by
/// copying what is not a hole. `report` hears the bytes done so far.
pub(crate) fn copy(from: &File, to: &File, report: &mut dyn FnMut(u64)) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    for (start, end) in extents(from, length)? {
        let mut at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let read = from.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
            done += read as u64;
            report(done);
        }
    }
    Ok(())
}

/// The pieces of `file` that hold data, as start and end, with short holes between them included.
pub(crate) fn extents(file: &File, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data after `at`.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        match pieces.last_mut() {
            Some(last) if start - last.1 < SHORTEST_HOLE => last.1 = end,
            Some(_) | None => pieces.push((start, end)),
        }
        at = end;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_copy_has_the_same_bytes(writes in prop::collection::vec((0u64..4 << 20, 1usize..200_000), 0..8)) {
            let from = tempfile::tempfile()?;
            from.set_len(5 << 20)?;
            for (at, size) in writes {
                from.write_all_at(&vec![7; size], at)?;
            }
            let to = tempfile::tempfile()?;
            copy(&from, &to, &mut |_| {})?;
            let read = |file: &File| -> io::Result<Vec<u8>> {
                let mut bytes = vec![0; 5 << 20];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            };
            prop_assert_eq!(to.metadata()?.len(), 5 << 20);
            prop_assert!(read(&from)? == read(&to)?);
        }
    }

    #[test]
    fn holes_stay_holes() {
        let from = tempfile::tempfile().expect("a file");
        from.set_len(1 << 30).expect("a sparse file");
        from.write_all_at(b"end", (1 << 30) - 3).expect("a write");
        let to = tempfile::tempfile().expect("a file");
        copy(&from, &to, &mut |_| {}).expect("a copy");
        use std::os::unix::fs::MetadataExt;
        assert!(to.metadata().expect("metadata").blocks() * 512 < 1 << 20);
    }
}
