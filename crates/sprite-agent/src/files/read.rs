//! Reads a regular file.

use std::os::fd::OwnedFd;

use rustix::fs::{Advice, OFlags};
use sprite_agent_api::fs::{FsRange, FsReply};

use super::channel::{Channel, Stop, Tried, refused};
use super::resolve::{open_regular, permission_bits};

pub(super) fn read(channel: &mut Channel, path: &str, range: Option<FsRange>) -> Result<(), Stop> {
    let (file, stat) = open_regular(path, OFlags::RDONLY).tried("open", path)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 && range.is_none() {
        return read_unsized(channel, path, &file, permission_bits(&stat));
    }
    let Some((offset, length)) = part(size, range) else {
        return channel.say(&FsReply::Unsatisfiable { size });
    };
    // Advice is taken or not.
    let _ = rustix::fs::fadvise(&file, offset, None, Advice::Sequential);
    channel.say(&FsReply::Reading {
        path: path.to_owned(),
        size: Some(size),
        offset,
        length: Some(length),
        mode: permission_bits(&stat),
    })?;
    let mut sent = 0;
    while sent < length {
        let most = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let read = channel.send_bytes(|buffer| {
            let most = most.min(buffer.len());
            pread(&file, &mut buffer[..most], offset + sent).tried("read", path)
        })?;
        if read == 0 {
            // It was cut meanwhile: less than was promised is an error, not a short file.
            return Err(refused(libc::EIO, "read all of", path));
        }
        sent += read as u64;
    }
    channel.say(&FsReply::Done)
}

/// A file that says it is empty: it is, or the kernel makes it while it is read.
fn read_unsized(channel: &mut Channel, path: &str, file: &OwnedFd, mode: u32) -> Result<(), Stop> {
    let mut first = [0; 4096];
    let known = pread(file, &mut first, 0).tried("read", path)?;
    let empty = known == 0;
    channel.say(&FsReply::Reading {
        path: path.to_owned(),
        size: empty.then_some(0),
        offset: 0,
        length: empty.then_some(0),
        mode,
    })?;
    let mut offset = known;
    if !empty {
        channel.send_bytes(|buffer| {
            buffer[..known].copy_from_slice(&first[..known]);
            Ok(known)
        })?;
        loop {
            let read = channel
                .send_bytes(|buffer| pread(file, buffer, offset as u64).tried("read", path))?;
            if read == 0 {
                break;
            }
            offset += read;
        }
    }
    channel.say(&FsReply::Done)
}

fn pread(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, rustix::io::Errno> {
    rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset))
}

/// The first byte and how many; `None` if there is no such part.
fn part(size: u64, range: Option<FsRange>) -> Option<(u64, u64)> {
    match range {
        None => Some((0, size)),
        Some(FsRange::From { first, last }) => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            (first < end).then(|| (first, end - first))
        }
        Some(FsRange::Last { length }) => {
            let length = length.min(size);
            (length > 0).then(|| (size - length, length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_the_file_does() {
        let from = |first, last| Some(FsRange::From { first, last });
        for (range, expected) in [
            (None, Some((0, 10))),
            (from(0, None), Some((0, 10))),
            (from(9, None), Some((9, 1))),
            (from(10, None), None),
            (from(2, Some(4)), Some((2, 3))),
            (from(2, Some(u64::MAX)), Some((2, 8))),
            (from(4, Some(2)), None),
            (Some(FsRange::Last { length: 3 }), Some((7, 3))),
            (Some(FsRange::Last { length: 99 }), Some((0, 10))),
            (Some(FsRange::Last { length: 0 }), None),
        ] {
            assert_eq!(part(10, range), expected, "{range:?}");
        }
        assert_eq!(part(0, from(0, None)), None);
    }
}
