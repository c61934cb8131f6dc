//! `PUT` and `GET /v1/sprites/{name}/fs/archive`: a tree of files as one stream.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use sprite_agent_api::fs::{FsReply, FsUnpacked};
use sprite_api::ErrorBody;
use sprite_api::fs::Unpacked;

use super::{Running, nonsense, params, read, write};
use crate::answer;
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::Answer;
use crate::routes::App;

/// Unpack an archive
///
/// The body is an archive in the format of tar (pax, ustar or GNU). What it holds is put below the directory `path`,
/// which is made if it is not there. Modes, times and links are kept; everything belongs to the user `sprite`, or to
/// root with `asRoot`. No link below `path` is followed, and no name leads out of it. Every file takes its place
/// whole; the answer comes when all of it is on the disk. What came before an error stays, and the error names the
/// entry.
#[utoipa::path(
    put, path = "/v1/sprites/{name}/fs/archive", tag = "fs", operation_id = "fs_unpack",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = String, Query, description = "The directory, absolute or below `workingDir`"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
    ),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 200, description = "All of it is on the disk", body = Unpacked),
        (status = 400, description = "A parameter is wrong, it is no archive, or an entry is not taken", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not write it", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 409, description = "Something stands in its way", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be written", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(crate) async fn unpack(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let spec = params::unpack(&connection::query(&parts)?);
    let done = write::put(&app, &named, spec, body, async |mut running| match running
        .reply()
        .await?
    {
        FsReply::Unpacked(unpacked) => Ok(told(unpacked)),
        _other => Err(nonsense()),
    });
    Ok(answer::ok(&done.await?))
}

fn told(unpacked: FsUnpacked) -> Unpacked {
    Unpacked {
        path: unpacked.path,
        files: unpacked.files,
        directories: unpacked.directories,
        links: unpacked.links,
        bytes: unpacked.bytes,
    }
}

/// Read a directory as an archive
///
/// The answer is an archive in the format of tar (pax). Links in it are links. Sockets, pipes, devices and other file
/// systems are left out, and told in global headers (`SPRITE.left_out`), as is a file that got shorter meanwhile and
/// ends in zeroes (`SPRITE.padded`). What cannot be read breaks the answer off; why is told in the archive
/// (`SPRITE.failed`), which then has no end.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/fs/archive", tag = "fs", operation_id = "fs_pack",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = String, Query, description = "The directory, absolute or below `workingDir`"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
    ),
    responses(
        (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/x-tar"),
        (status = 400, description = "A parameter is wrong, or it is no directory", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not read it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or directory", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be read", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn pack(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let spec = params::pack(&connection::query(&parts)?)?;
    let mut running = Running::begin(&app, &named.sprite, spec).await?;
    match running.reply().await? {
        FsReply::Packing { .. } => {}
        _other => return Err(nonsense()),
    }
    let mut response = Response::new(read::body(running, None, connection.stop));
    let kind = HeaderValue::from_static("application/x-tar");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
