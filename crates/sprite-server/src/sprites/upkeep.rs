//! `restart`, `sleep`, `check` and `upgrade` of a sprite.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::sprite::{CheckStatus as WireStatus, Checked, Restarted, Upgrade, Upgraded};
use sprite_api::{ErrorBody, Stamp};
use sprite_host::CheckStatus;
use sprite_types::RUNTIME_VERSION;

use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Restart a sprite
///
/// Ends its machine in order and starts another. Its disk stays, its sessions end.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/restart", tag = "sprites", operation_id = "restart_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "It runs again", body = Restarted),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn restart(State(app): State<App>, named: Named) -> Answer<Response> {
    let machine = app.host.restart(named.sprite.id).await?;
    Ok(answer::ok(&Restarted {
        sprite_name: named.sprite.name.to_string(),
        machine_id: machine.to_string(),
        message: format!("Sprite '{}' restarted", named.sprite.name),
    }))
}

/// How long a request to sleep waits for calls that are under way.
const SLEEP_WITHIN: Duration = Duration::from_secs(8);

/// Put a sprite to sleep
///
/// Waits up to 8 s for requests that are under way, and for nothing else: sessions and connections stand still with the
/// sprite, stay open, and wake it with the first byte that comes. One that sleeps already sleeps on.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/sleep", tag = "sprites", operation_id = "sleep_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 204, description = "It sleeps"),
        (status = 404, description = "There is none of that name", body = ErrorBody),
        (status = 409, description = "A task or a request keeps it awake", body = ErrorBody),
        (status = 503, description = "It could not fall asleep, and runs on", body = ErrorBody),
    )
)]
pub(crate) async fn sleep(State(app): State<App>, named: Named) -> Answer<Response> {
    app.host.sleep(named.sprite.id, SLEEP_WITHIN).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Check a sprite's health
///
/// Asks its agent if it runs. Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/check", tag = "sprites", operation_id = "check_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "What was found", body = Checked),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn check(State(app): State<App>, named: Named) -> Answer<Response> {
    let check = app.host.check(named.sprite.id).await?;
    Ok(answer::ok(&Checked {
        sprite_name: named.sprite.name.to_string(),
        sprite_id: named.sprite.id,
        status: match check.status {
            CheckStatus::Healthy => WireStatus::Healthy,
            CheckStatus::Hibernated => WireStatus::Hibernated,
            CheckStatus::Unhealthy => WireStatus::Unhealthy,
            CheckStatus::Error => WireStatus::Error,
        },
        reason: Some(check.reason).filter(|reason| !reason.is_empty()),
        checked_at: Stamp(check.checked_at),
        elapsed: go_duration(check.elapsed),
    }))
}

/// Bring a sprite to the server's agent and kernel
///
/// Restarts it if its machine, or the memory that it sleeps with, has older ones: its disk stays, its sessions end.
/// Otherwise nothing happens to it. There is no other version to choose.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/upgrade", tag = "sprites", operation_id = "upgrade_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Option<Upgrade>,
    responses(
        (status = 200, description = "It has the newest version", body = Upgraded),
        (status = 400, description = "There is no such version", body = ErrorBody),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn upgrade(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    let wanted: Upgrade = body::optional_json(request).await?;
    match wanted.version.as_deref() {
        None | Some("" | "latest" | RUNTIME_VERSION) => {}
        Some(other) => {
            return Err(Problem::field(format!(
                "version {:?} is not available, only {RUNTIME_VERSION} is",
                super::cut(other)
            )));
        }
    }
    let restarted = app.host.upgrade(named.sprite.id).await?;
    Ok(answer::ok(&Upgraded {
        sprite_name: named.sprite.name.to_string(),
        version: RUNTIME_VERSION.to_owned(),
        restarted,
    }))
}

/// A duration as Go writes it, in milliseconds with microseconds behind the point.
fn go_duration(duration: Duration) -> String {
    format!(
        "{}.{:03}ms",
        duration.as_millis(),
        duration.subsec_micros() % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.1: durations as Go writes them.
    #[test]
    fn durations_read_back() {
        let duration = Duration::from_micros(1_234_567);
        assert_eq!(go_duration(duration), "1234.567ms");
        assert_eq!(
            sprite_api::unit::parse_duration(&go_duration(duration)),
            Ok(duration)
        );
    }
}
