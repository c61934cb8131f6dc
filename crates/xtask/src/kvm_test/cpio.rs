//! Archives that the kernel unpacks as its first file system.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst, the format `newc`.

/// An archive being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// Numbers of a header: magic, thirteen fields of eight digits.
const HEADER: usize = 6 + 13 * 8;

/// Names and contents begin at multiples of it.
const ALIGNMENT: usize = 4;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// Adds a directory. Those above it must have been added before.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, &[]);
    }

    /// Adds a file that everybody may read and execute.
    pub fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("programs of an initramfs are below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names here are short");
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // time: the same archive from the same files
            size,
            0, // device, major and minor
            0,
            0, // device that this is, major and minor
            0,
            name_size,
            0, // checksum, of another format
        ];
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        debug_assert_eq!(self.bytes.len() - begin, HEADER);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        let aligned = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(aligned, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_last_one_ends_the_archive() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.program("init", b"#!/bin/sh\n1");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|at| at % ALIGNMENT == 0), "{starts:?}");
        let size = &text[starts[1] + 6 + 6 * 8..][..8];
        assert_eq!(size, "0000000b");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
