//! `GET /v1/sprites/{name}/fs/list`: written as it comes, however long it is.

use std::io;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sprite_agent_api::fs::{FsEntry, FsKind, FsReply};
use sprite_api::fs::{Entry, EntryKind, Listing};
use sprite_api::{ErrorBody, Stamp};
use tokio_util::sync::CancellationToken;

use super::{Running, errno, nonsense, octal, params};
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::Answer;
use crate::routes::App;

/// List a directory
///
/// A file lists itself. Links are not followed below the path. A listing that is cut off is no JSON: it never looks
/// whole.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/fs/list", tag = "fs", operation_id = "fs_list",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = String, Query, description = "The directory or file, absolute or below `workingDir`"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("recursive" = Option<bool>, Query, description = "With all directories below"),
        ("pattern" = Option<String>, Query, description = "Only what matches: by name, or by the path below `path` if it holds `/`. `*`, `?`, `[a-z]`, `**`"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
    ),
    responses(
        (status = 200, description = "The entries", body = Listing),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not list it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or directory", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be read", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let spec = params::list(&connection::query(&parts)?)?;
    let mut running = Running::begin(&app, &named.sprite, spec).await?;
    let path = match running.reply().await? {
        FsReply::Listing { path } => path,
        _other => return Err(nonsense()),
    };
    let mut response = Response::new(body(running, &path, connection.stop));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Where a listing is in its text.
struct Writing {
    running: Running,
    text: String,
    count: u64,
    stop: CancellationToken,
}

fn body(running: Running, path: &str, stop: CancellationToken) -> Body {
    let path = serde_json::to_string(path).expect("a text is JSON");
    let begun = Some(Writing {
        running,
        text: format!("{{\"path\":{path},\"entries\":["),
        count: 0,
        stop,
    });
    let pieces = stream::unfold(begun, |state| async move {
        let mut writing = state?;
        match writing.next().await {
            Ok(true) => {
                let piece = std::mem::take(&mut writing.text);
                Some((Ok(Bytes::from(piece)), Some(writing)))
            }
            Ok(false) => Some((Ok(Bytes::from(writing.text)), None)),
            Err(error) => {
                tracing::info!(%error, "a listing broke off");
                Some((Err(error), None))
            }
        }
    });
    Body::from_stream(pieces)
}

impl Writing {
    /// Writes on; `false` at the end.
    async fn next(&mut self) -> io::Result<bool> {
        let said = tokio::select! {
            said = self.running.reply() => said,
            () = self.stop.cancelled() => return Err(io::Error::other("server stops")),
        };
        match said {
            Ok(FsReply::Entries { entries }) => {
                for entry in entries {
                    if self.count > 0 {
                        self.text.push(',');
                    }
                    self.count += 1;
                    let entry = serde_json::to_string(&shown(entry));
                    self.text.push_str(&entry.expect("entries are JSON"));
                }
                Ok(true)
            }
            Ok(FsReply::Done) => {
                self.text.push_str(&format!("],\"count\":{}}}", self.count));
                Ok(false)
            }
            Ok(_other) => Err(io::Error::other("the machine answered something else")),
            Err(problem) => Err(io::Error::other(problem.message().to_owned())),
        }
    }
}

/// An entry as clients are told it.
pub(crate) fn shown(entry: FsEntry) -> Entry {
    let nanos = i128::from(entry.mtime) * 1_000_000_000 + i128::from(entry.mtime_nanos);
    Entry {
        name: entry.name,
        path: entry.path,
        kind: match entry.kind {
            FsKind::File => EntryKind::File,
            FsKind::Directory => EntryKind::Directory,
            FsKind::Symlink => EntryKind::Symlink,
            FsKind::Fifo => EntryKind::Fifo,
            FsKind::Socket => EntryKind::Socket,
            FsKind::BlockDevice => EntryKind::BlockDevice,
            FsKind::CharDevice => EntryKind::CharDevice,
            FsKind::Unknown => EntryKind::Unknown,
        },
        size: entry.size,
        mode: octal(entry.mode),
        mod_time: Stamp::from_unix_nanos(nanos),
        is_dir: entry.kind == FsKind::Directory,
        uid: entry.uid,
        gid: entry.gid,
        target: entry.target,
        error: entry.errno.map(|errno| errno::code(errno).to_owned()),
    }
}
