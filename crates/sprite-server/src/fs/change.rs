//! `DELETE …/fs/delete` and `POST …/fs/{rename,copy,chmod,chown}`: what they are to do stands in a JSON body, in the
//! query, or in both; the query wins.

use axum::extract::{Request, State};
use axum::response::Response;
use sprite_agent_api::fs::{FsChanged, FsPair, FsSpec};
use sprite_api::ErrorBody;
use sprite_api::fs::{
    Change, Copied, Deleted, ModeChanged, ModesChanged, Moved, OwnerChanged, OwnersChanged,
};
use sprite_api::query::Query;

use super::{Running, octal, params};
use crate::named::Named;
use crate::problem::Answer;
use crate::routes::App;
use crate::{answer, body, connection};

/// Query and body as one.
async fn asked(request: Request) -> Answer<Query> {
    let (parts, request) = request.into_parts();
    let query = connection::query(&parts)?;
    let said: Change = body::optional_json(request).await?;
    let mut pairs = query.into_pairs();
    // The first of a key counts.
    pairs.extend(said.into_pairs());
    Ok(Query::from_pairs(pairs))
}

async fn changed(app: &App, named: &Named, spec: FsSpec) -> Answer<FsChanged> {
    Running::begin(app, &named.sprite, spec)
        .await?
        .changed()
        .await
}

/// Delete a file or directory
///
/// A link is itself deleted. A directory that holds something needs `recursive`.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/fs/delete", tag = "fs", operation_id = "fs_delete",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = Option<String>, Query, description = "What is deleted; in the query or in the body"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("recursive" = Option<bool>, Query, description = "With all that a directory holds"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
    ),
    request_body = Option<Change>,
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not delete it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or file", body = ErrorBody),
        (status = 409, description = "The directory is not empty, or it is in use", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be deleted", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let spec = params::delete(&asked(request).await?)?;
    Ok(answer::ok(&deleted(changed(&app, &named, spec).await?)))
}

pub(crate) fn deleted(changed: FsChanged) -> Deleted {
    Deleted {
        deleted: changed.paths.into_iter().map(|pair| pair.path).collect(),
        count: changed.count,
    }
}

/// Rename a file or directory
///
/// A file that has the name already is replaced.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/fs/rename", tag = "fs", operation_id = "fs_rename",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Change,
    responses(
        (status = 200, description = "It has its new name", body = Moved),
        (status = 400, description = "A parameter is wrong, or both names are on different file systems", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not rename it", body = ErrorBody),
        (status = 404, description = "There is no such sprite, file or directory", body = ErrorBody),
        (status = 409, description = "Something stands in its way", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be renamed", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(crate) async fn rename(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let spec = params::rename(&asked(request).await?)?;
    Ok(answer::ok(&renamed(changed(&app, &named, spec).await?)))
}

pub(crate) fn renamed(changed: FsChanged) -> Moved {
    let first = changed.paths.into_iter().next().map(moved);
    first.unwrap_or_else(|| Moved {
        source: String::new(),
        dest: String::new(),
    })
}

fn moved(pair: FsPair) -> Moved {
    Moved {
        source: pair.path,
        dest: pair.dest.unwrap_or_default(),
    }
}

/// Copy a file or directory
///
/// `dest` is the copy's own name. A directory needs `recursive`; links in it are copied as links.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/fs/copy", tag = "fs", operation_id = "fs_copy",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Change,
    responses(
        (status = 200, description = "The copy is on the disk", body = Copied),
        (status = 400, description = "A parameter is wrong, or something in it cannot be copied", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not copy it", body = ErrorBody),
        (status = 404, description = "There is no such sprite, file or directory", body = ErrorBody),
        (status = 409, description = "Something stands in its way", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be copied", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(crate) async fn copy(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let spec = params::copy(&asked(request).await?)?;
    Ok(answer::ok(&copied(changed(&app, &named, spec).await?)))
}

pub(crate) fn copied(changed: FsChanged) -> Copied {
    Copied {
        copied: changed.paths.into_iter().map(moved).collect(),
        count: changed.count,
        total_bytes: changed.bytes,
    }
}

/// Change the mode
///
/// A link at the end of the path is followed; below a directory no link is.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/fs/chmod", tag = "fs", operation_id = "fs_chmod",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Change,
    responses(
        (status = 200, description = "The mode is changed", body = ModesChanged),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not change it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or file", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be changed", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn chmod(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let (spec, mode) = params::chmod(&asked(request).await?)?;
    let changed = changed(&app, &named, spec).await?;
    Ok(answer::ok(&modes_changed(changed, mode)))
}

pub(crate) fn modes_changed(changed: FsChanged, mode: u32) -> ModesChanged {
    let one = |pair: FsPair| ModeChanged {
        path: pair.path,
        mode: octal(mode),
    };
    ModesChanged {
        affected: changed.paths.into_iter().map(one).collect(),
        count: changed.count,
    }
}

/// Change the owner
///
/// Numbers, or names that the environment knows. Only root can give files away (`asRoot`).
#[utoipa::path(
    post, path = "/v1/sprites/{name}/fs/chown", tag = "fs", operation_id = "fs_chown",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Change,
    responses(
        (status = 200, description = "The owner is changed", body = OwnersChanged),
        (status = 400, description = "A parameter is wrong, or there is no such user", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not change it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or file", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be changed", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn chown(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let spec = params::chown(&asked(request).await?)?;
    Ok(answer::ok(&owners_changed(
        changed(&app, &named, spec).await?,
    )))
}

pub(crate) fn owners_changed(changed: FsChanged) -> OwnersChanged {
    let (uid, gid) = (
        changed.uid.unwrap_or_default(),
        changed.gid.unwrap_or_default(),
    );
    let one = |pair: FsPair| OwnerChanged {
        path: pair.path,
        uid,
        gid,
    };
    OwnersChanged {
        affected: changed.paths.into_iter().map(one).collect(),
        count: changed.count,
    }
}
