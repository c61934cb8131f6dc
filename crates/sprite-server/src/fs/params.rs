//! Operations as queries ask for them: of an address, of a JSON body, or of the control socket.

use sprite_agent_api::fs::{FsCall, FsRange, FsSpec, LONGEST_PATH, Owner, Parents};
use sprite_api::query::Query;

use super::errno::invalid;
use crate::problem::Answer;

/// The file whose writing and deleting stands for making its directory. Source: behaviour reference §1.10.
const KEEP: &str = ".keep";

fn spec(query: &Query, call: FsCall) -> Answer<FsSpec> {
    let working_dir = query.get("workingDir").filter(|dir| !dir.is_empty());
    let working_dir = working_dir.map(|_| path(query, "workingDir")).transpose()?;
    let as_root = switch(query, "asRoot")?.unwrap_or(false);
    Ok(FsSpec {
        call,
        working_dir,
        as_root,
    })
}

pub(crate) fn read(query: &Query, range: Option<FsRange>) -> Answer<FsSpec> {
    let path = path(query, "path")?;
    spec(query, FsCall::Read { path, range })
}

pub(crate) fn write(query: &Query) -> Answer<FsSpec> {
    let path = path(query, "path")?;
    let mode = query.get("mode").filter(|mode| !mode.is_empty());
    let mode = mode.map(|mode| octal(mode, &path)).transpose()?;
    let parents = match switch(query, "mkdirParents")? {
        Some(parents) => Some(parents),
        None => switch(query, "mkdir")?,
    };
    let parents = match parents {
        Some(true) | None => Parents::All,
        // `mkdir` of one directory, as an SDK says it.
        Some(false) if path.rsplit('/').next() == Some(KEEP) => Parents::One,
        Some(false) => Parents::None,
    };
    let call = FsCall::Write {
        path,
        mode,
        parents,
    };
    spec(query, call)
}

pub(crate) fn list(query: &Query) -> Answer<FsSpec> {
    let pattern = query.get("pattern").filter(|pattern| !pattern.is_empty());
    if let Some(pattern) = pattern.filter(|pattern| pattern.len() > LONGEST_PATH) {
        let shown: String = pattern.chars().take(80).collect();
        return Err(invalid(format!("pattern is too long: {shown}…"), ""));
    }
    let call = FsCall::List {
        path: path(query, "path")?,
        recursive: switch(query, "recursive")?.unwrap_or(false),
        pattern: pattern.map(str::to_owned),
    };
    spec(query, call)
}

pub(crate) fn delete(query: &Query) -> Answer<FsSpec> {
    let call = FsCall::Delete {
        path: path(query, "path")?,
        recursive: switch(query, "recursive")?.unwrap_or(false),
    };
    spec(query, call)
}

pub(crate) fn rename(query: &Query) -> Answer<FsSpec> {
    let call = FsCall::Rename {
        source: path(query, "source")?,
        dest: path(query, "dest")?,
    };
    spec(query, call)
}

pub(crate) fn copy(query: &Query) -> Answer<FsSpec> {
    let call = FsCall::Copy {
        source: path(query, "source")?,
        dest: path(query, "dest")?,
        recursive: switch(query, "recursive")?.unwrap_or(false),
        preserve: switch(query, "preserveAttrs")?.unwrap_or(false),
    };
    spec(query, call)
}

/// The spec, and the mode that it sets.
pub(crate) fn chmod(query: &Query) -> Answer<(FsSpec, u32)> {
    let path = path(query, "path")?;
    let Some(mode) = query.get("mode").filter(|mode| !mode.is_empty()) else {
        return Err(invalid("mode is required".to_owned(), &path));
    };
    let mode = octal(mode, &path)?;
    let call = FsCall::Chmod {
        path,
        mode,
        recursive: switch(query, "recursive")?.unwrap_or(false),
    };
    Ok((spec(query, call)?, mode))
}

pub(crate) fn chown(query: &Query) -> Answer<FsSpec> {
    let path = path(query, "path")?;
    let owner = |key: &str| {
        let value = query.get(key).filter(|value| !value.is_empty());
        value.map(|value| match value.parse() {
            Ok(id) => Owner::Id(id),
            Err(_) => Owner::Name(value.chars().take(LONGEST_PATH).collect()),
        })
    };
    let (user, group) = (owner("uid"), owner("gid"));
    if user.is_none() && group.is_none() {
        return Err(invalid("uid or gid is required".to_owned(), &path));
    }
    let call = FsCall::Chown {
        path,
        user,
        group,
        recursive: switch(query, "recursive")?.unwrap_or(false),
    };
    spec(query, call)
}

pub(crate) fn unpack(query: &Query) -> Answer<FsSpec> {
    let path = path(query, "path")?;
    spec(query, FsCall::Unpack { path })
}

pub(crate) fn pack(query: &Query) -> Answer<FsSpec> {
    let path = path(query, "path")?;
    spec(query, FsCall::Pack { path })
}

fn path(query: &Query, key: &str) -> Answer<String> {
    match query.get(key) {
        None | Some("") => Err(invalid(format!("{key} is required"), "")),
        Some(path) if path.contains('\0') => Err(invalid(format!("{key} holds a zero byte"), "")),
        Some(path) if path.len() > LONGEST_PATH => {
            let message = format!("{key} is longer than {LONGEST_PATH} bytes");
            Err(invalid(message, ""))
        }
        Some(path) => Ok(path.to_owned()),
    }
}

fn switch(query: &Query, key: &str) -> Answer<Option<bool>> {
    let switch = query.switch(key).transpose();
    switch.map_err(|value| {
        let value: String = value.chars().take(80).collect();
        invalid(format!("{key} is neither true nor false: {value}"), "")
    })
}

fn octal(text: &str, path: &str) -> Answer<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|mode| plain && *mode <= 0o7777).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        invalid(format!("mode is not octal digits up to 7777: {text}"), path)
    })
}

/// Reads a query as each operation would.
///
/// # Panics
/// An operation is asked for that cannot be.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn try_all(query: &Query) {
    let mode = chmod(query).map(|(spec, mode)| {
        assert!(mode <= 0o7777, "{mode:o} is no mode");
        spec
    });
    let all = [
        read(query, None),
        write(query),
        list(query),
        delete(query),
        rename(query),
        copy(query),
        mode,
    ];
    let others = [chown(query), unpack(query), pack(query)];
    for spec in all.into_iter().chain(others).flatten() {
        let named = match &spec.call {
            FsCall::Read { path, .. }
            | FsCall::Write { path, .. }
            | FsCall::List { path, .. }
            | FsCall::Delete { path, .. }
            | FsCall::Chmod { path, .. }
            | FsCall::Chown { path, .. }
            | FsCall::Unpack { path }
            | FsCall::Pack { path } => vec![path],
            FsCall::Rename { source, dest } | FsCall::Copy { source, dest, .. } => {
                vec![source, dest]
            }
            FsCall::Watch => vec![],
        };
        for path in named.into_iter().chain(&spec.working_dir) {
            let short = (1..=LONGEST_PATH).contains(&path.len());
            assert!(short && !path.contains('\0'), "{path:?} is no path");
        }
    }
}

/// The part that a `Range` header asks for. What is no single range of bytes is as if it were not there.
/// Source: RFC 9110 §14.2.
pub(crate) fn range(header: &str) -> Option<FsRange> {
    let (first, last) = header
        .trim()
        .strip_prefix("bytes=")?
        .trim()
        .split_once('-')?;
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    match (first.trim(), last.trim()) {
        ("", length) => Some(FsRange::Last {
            length: number(length)?,
        }),
        (first, "") => Some(FsRange::From {
            first: number(first)?,
            last: None,
        }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(FsRange::From {
                first,
                last: Some(last),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        let from = |first, last| Some(FsRange::From { first, last });
        for (header, expected) in [
            ("bytes=0-4", from(0, Some(4))),
            ("bytes=5-", from(5, None)),
            ("bytes=-3", Some(FsRange::Last { length: 3 })),
            ("bytes=-0", Some(FsRange::Last { length: 0 })),
            ("bytes=4-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=99999999999999999999-", None),
            ("items=0-4", None),
            ("", None),
        ] {
            assert_eq!(range(header), expected, "{header}");
        }
    }

    #[test]
    fn modes_are_octal_and_in_range() {
        for (text, mode) in [
            ("0644", 0o644),
            ("755", 0o755),
            ("0o7777", 0o7777),
            ("0", 0),
        ] {
            assert_eq!(octal(text, "").ok(), Some(mode), "{text}");
        }
        for text in ["", "8", "-1", "+7", "10000", "rwx", "77777777777777"] {
            assert!(octal(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_is_made_by_the_name_that_stands_for_it() {
        let parents = |text: &str| {
            let query = Query::parse(text).expect("form encoding");
            match write(&query).expect("a write").call {
                FsCall::Write { parents, .. } => parents,
                _ => unreachable!("it is a write"),
            }
        };
        assert_eq!(parents("path=a/b"), Parents::All);
        assert_eq!(parents("path=a/b&mkdir=true"), Parents::All);
        assert_eq!(parents("path=a/b&mkdirParents=false"), Parents::None);
        assert_eq!(parents("path=a/.keep&mkdirParents=false"), Parents::One);
    }
}
