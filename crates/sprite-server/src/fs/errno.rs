//! Errors of the environment's kernel, as clients are told them. Source: behaviour reference §1.2.

use sprite_agent_api::fs::FsError;
use sprite_api::ErrorKind;

use crate::problem::Problem;

struct Row {
    code: &'static str,
    kind: ErrorKind,
    text: &'static str,
}

/// The one table. The numbers come from the machine: those that are not here are `EIO`.
fn row(errno: i32) -> Row {
    use ErrorKind::{Conflict, Forbidden, Internal, Invalid, NoSpace, NotFound, Unavailable};
    let (code, kind, text) = match errno {
        libc::ENOENT => ("ENOENT", NotFound, "no such file or directory"),
        libc::EEXIST => ("EEXIST", Conflict, "it exists already"),
        libc::ENOTEMPTY => ("ENOTEMPTY", Conflict, "the directory is not empty"),
        libc::EBUSY => ("EBUSY", Conflict, "it is in use"),
        libc::EACCES => ("EACCES", Forbidden, "permission denied"),
        libc::EPERM => ("EPERM", Forbidden, "operation not permitted"),
        libc::EROFS => ("EROFS", Forbidden, "the file system is read-only"),
        libc::ENOTDIR => ("ENOTDIR", Invalid, "a part of the path is not a directory"),
        libc::EISDIR => ("EISDIR", Invalid, "it is a directory"),
        libc::EINVAL => ("EINVAL", Invalid, "that makes no sense for it"),
        libc::ELOOP => ("ELOOP", Invalid, "too many links or directories in a row"),
        libc::ENAMETOOLONG => ("ENAMETOOLONG", Invalid, "the name is too long"),
        libc::EXDEV => ("EXDEV", Invalid, "it is on another file system"),
        libc::EILSEQ => ("EILSEQ", Invalid, "the name is not UTF-8"),
        libc::ENXIO => ("ENXIO", Invalid, "it cannot be opened"),
        libc::EMLINK => ("EMLINK", Invalid, "it has too many names"),
        libc::EOPNOTSUPP => ("EOPNOTSUPP", Invalid, "its file system does not do that"),
        libc::ENOSPC => ("ENOSPC", NoSpace, "the disk is full"),
        libc::EDQUOT => ("EDQUOT", NoSpace, "the quota is used up"),
        libc::EFBIG => ("EFBIG", NoSpace, "the file is too large"),
        libc::EAGAIN => ("EAGAIN", Unavailable, "it changes too fast"),
        libc::ENOMEM => ("ENOMEM", Unavailable, "the sprite is out of memory"),
        libc::EMFILE => ("EMFILE", Unavailable, "too many files are open"),
        libc::ENFILE => ("ENFILE", Unavailable, "too many files are open"),
        _ => ("EIO", Internal, "input/output error"),
    };
    Row { code, kind, text }
}

/// The name of an error number.
pub(super) fn code(errno: i32) -> &'static str {
    row(errno).code
}

/// What a client is told.
pub(super) fn problem(error: &FsError) -> Problem {
    let Row { code, kind, text } = row(error.errno);
    let path: String = error.path.chars().take(4096).collect();
    let step: String = error.step.chars().take(200).collect();
    let message = format!("{text}: {step} {path}");
    Problem::of_file(kind, code, path, message.trim_end().to_owned())
}

/// A request that makes no sense, said as the kernel says it.
pub(super) fn invalid(message: String, path: &str) -> Problem {
    Problem::of_file(ErrorKind::Invalid, "EINVAL", path.to_owned(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.2.
    #[test]
    fn known_errors_have_their_statuses() {
        for (errno, code, status) in [
            (libc::ENOENT, "ENOENT", 404),
            (libc::EEXIST, "EEXIST", 409),
            (libc::ENOTEMPTY, "ENOTEMPTY", 409),
            (libc::ENOTDIR, "ENOTDIR", 400),
            (libc::EISDIR, "EISDIR", 400),
            (libc::EINVAL, "EINVAL", 400),
            (libc::EACCES, "EACCES", 403),
            (libc::EPERM, "EPERM", 403),
            (libc::EIO, "EIO", 500),
            (i32::MIN, "EIO", 500),
        ] {
            let row = row(errno);
            assert_eq!((row.code, row.kind.status()), (code, status));
        }
    }
}
