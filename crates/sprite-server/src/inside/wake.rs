//! `/v1/wake`: moments at which a sprite wants to be awake.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::alarm::{Alarm, AlarmList, PutAlarm};
use sprite_api::query::Query;
use sprite_api::{ErrorBody, ErrorKind, Stamp};
use sprite_host::AlarmError;
use time::OffsetDateTime;

use super::Me;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// List the moments at which this sprite is woken
#[utoipa::path(
    get, path = "/v1/wake", tag = "sprite", operation_id = "list_alarms",
    responses(
        (status = 200, description = "The next one first", body = AlarmList),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    let alarms = app.host.alarms(sprite.id).await?;
    let alarms = alarms.into_iter().map(|at| Alarm { at: at.into() });
    Ok(answer::ok(&AlarmList {
        alarms: alarms.collect(),
    }))
}

/// Have this sprite woken at a moment
///
/// Once, if it sleeps then; it does not stay awake for it. One of the same moment is the same.
#[utoipa::path(
    post, path = "/v1/wake", tag = "sprite", operation_id = "create_alarm",
    request_body = PutAlarm,
    responses(
        (status = 201, description = "It will be", body = Alarm),
        (status = 400, description = "The moment is none, or over, or there are too many", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Me(sprite): Me,
    request: Body,
) -> Answer<Response> {
    let at = moment(body::json(request).await?)?;
    app.host.put_alarm(sprite.id, at).await?;
    let alarm = Alarm { at: at.into() };
    Ok(answer::json(StatusCode::CREATED, &alarm))
}

/// Have this sprite not woken
#[utoipa::path(
    delete, path = "/v1/wake", tag = "sprite", operation_id = "delete_alarms",
    params(("at" = Option<String>, Query, description = "The moment; all of them if absent")),
    responses(
        (status = 204, description = "It will not be"),
        (status = 400, description = "The moment is none", body = ErrorBody),
        (status = 404, description = "There is no alarm of that moment, or the sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    Me(sprite): Me,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    let at = query.get("at").map(|text| {
        Stamp::try_from(text.to_owned())
            .map_err(|error| Problem::field(format!("at: no time in RFC 3339: {error}")))
    });
    let at = at.transpose()?.map(|stamp| stamp.0);
    app.host.delete_alarms(sprite.id, at).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// The one moment that is asked for, in whole microseconds, as it is told again.
fn moment(wanted: PutAlarm) -> Answer<OffsetDateTime> {
    let at = match (wanted.at, wanted.after) {
        (Some(at), None) => at.0,
        (None, Some(after)) => {
            let after = after.duration();
            let after = after.map_err(|error| Problem::field(format!("in: {error}")))?;
            let after = time::Duration::try_from(after).ok();
            let at = after.and_then(|after| OffsetDateTime::now_utc().checked_add(after));
            at.ok_or_else(|| Problem::field("in: no clock goes so far"))?
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(Problem::field("one of at and in is required"));
        }
    };
    // Rounded up: an alarm never comes before its moment.
    let at = at.checked_add(time::Duration::nanoseconds(999));
    let at = at.and_then(|at| at.replace_microsecond(at.microsecond()).ok());
    at.ok_or_else(|| Problem::field("at: no clock goes so far"))
}

impl From<AlarmError> for Problem {
    fn from(error: AlarmError) -> Self {
        match error {
            AlarmError::Past => Self::field("at: the moment is over"),
            AlarmError::TooMany { .. } => Self::field(error.to_string())
                .with_hint("DELETE /v1/wake deletes alarms that are not wanted any more"),
            AlarmError::NotFound => Self::new(ErrorKind::NotFound, "alarm not found"),
            AlarmError::NoSprite => Self::no_sprite(),
            AlarmError::Catalog(_) => Self::internal(&error),
        }
    }
}
