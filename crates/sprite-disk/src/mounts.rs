//! What is mounted where, as this process sees it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of `/proc/self/mountinfo`, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) at: PathBuf,
    /// Type of the file system.
    pub(crate) kind: String,
    /// The device, for file systems that have one.
    pub(crate) source: PathBuf,
}

/// The mount that is visible at `path`: the last of those stacked there.
pub(crate) fn at(path: &Path) -> io::Result<Option<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).into_iter().rfind(|mount| mount.at == path))
}

/// Lines that do not have the documented form are left out: a later kernel may add some.
/// Source: Linux `Documentation/filesystems/proc.rst`, section 3.5.
fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = unescape(fields.nth(4)?);
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8(after.next()?.to_vec()).ok()?;
    let source = unescape(after.next()?);
    Some(Mount { at, kind, source })
}

/// Spaces, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_read() {
        let table =
            b"36 35 98:0 /m /mnt/a\\040b rw,noatime master:1 shared:2 - xfs /dev/loop7 rw\n\
            37 35 0:5 / /proc rw - proc proc rw\n\
            broken line\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].at, Path::new("/mnt/a b"));
        assert_eq!(mounts[0].kind, "xfs");
        assert_eq!(mounts[0].source, Path::new("/dev/loop7"));
        assert_eq!(mounts[1].kind, "proc");
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(b"a\\"), Path::new("a\\"));
        assert_eq!(unescape(b"a\\9zz"), Path::new("a\\9zz"));
        assert_eq!(unescape(b"a\\134b"), Path::new("a\\b"));
    }

    #[test]
    fn the_root_is_a_mount_and_a_plain_directory_is_not() {
        assert!(at(Path::new("/")).expect("mountinfo is readable").is_some());
        let plain = tempfile::tempdir().expect("a directory");
        assert_eq!(at(plain.path()).expect("mountinfo is readable"), None);
    }
}
