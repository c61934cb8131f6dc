//! What changes services, and what becomes of it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use sprite_agent_api::message::FailureKind;
use sprite_agent_api::services::ServicesCall;
use sprite_api::ErrorBody;
use sprite_api::query::Query;
use sprite_api::service::{PutService, ServiceEvent, SignalService};
use sprite_api::unit::Signal;
use sprite_host::{Asker, Host, ServiceChange, ServiceError, ServiceTelling, Sprite};
use sprite_types::{ServiceName, ServiceSpec};
use std::num::NonZeroU16;

use super::stream::{self, Until};
use super::{GRACE, ServiceOf, WATCHED, duration, milliseconds, no_service, refused};
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Create a service, or change it
///
/// It is started, with those that it needs; one that runs already is started anew if it is described otherwise than
/// before. The answer tells what happens for `duration`, and ends early with `error` if the service ends or cannot be
/// started. The service stays, and is started again.
#[utoipa::path(
    put, path = "/v1/sprites/{name}/services/{service}", tag = "services", operation_id = "put_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service: letters, digits, `-`, `_` and `.`"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    request_body = PutService,
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The service is described wrongly, there are too many, or what is needed does not exist or goes round in a circle", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 409, description = "Another service has an HTTP port", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn put(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    put_of(
        &app.host,
        &named.sprite,
        service,
        Asker::Outside,
        connection,
        request,
    )
    .await
}

/// Start a service
///
/// And those that it needs. One that runs is left as it is.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/services/{service}/start", tag = "services", operation_id = "start_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn start(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Start, Asker::Outside);
    told_of(&app.host, &named.sprite, service, what, connection, request).await
}

/// Restart a service
///
/// Its process is ended, if there is one, and another one started.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/services/{service}/restart", tag = "services", operation_id = "restart_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn restart(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Restart, Asker::Outside);
    told_of(&app.host, &named.sprite, service, what, connection, request).await
}

/// Stop a service
///
/// Its process group gets SIGTERM, and SIGKILL when `timeout` is over. It stays stopped, over sleep and boots, until it
/// is started.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/services/{service}/stop", tag = "services", operation_id = "stop_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
        ("timeout" = Option<String>, Query, description = "How long its processes may take (`10s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 409, description = "It is stopped already", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn stop(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Stop, Asker::Outside);
    told_of(&app.host, &named.sprite, service, what, connection, request).await
}

/// Delete a service
///
/// Its process group is ended, as by a stop; its logs stay.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/services/{service}", tag = "services", operation_id = "delete_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
    ),
    responses(
        (status = 204, description = "There is none of that name"),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 409, description = "Another service needs it", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
) -> Answer<Response> {
    delete_of(&app.host, &named.sprite, service, Asker::Outside).await
}

/// Signal a service
///
/// Its process group gets the signal. A service that ends by it is started again.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/services/signal", tag = "services", operation_id = "signal_service",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = SignalService,
    responses(
        (status = 204, description = "It was sent"),
        (status = 400, description = "There is no such signal", body = ErrorBody),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 409, description = "The service is not running", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn signal(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    signal_of(&app.host, &named.sprite, request, Asker::Outside).await
}

pub(crate) async fn put_of(
    host: &Host,
    sprite: &Sprite,
    ServiceOf(name): ServiceOf,
    asker: Asker,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, request) = request.into_parts();
    let watched = duration(&connection::query(&parts)?, "duration", WATCHED)?;
    let spec = spec(body::json(request).await?)?;
    let call = ServicesCall::Start {
        name: name.clone(),
        watch_ms: milliseconds(watched),
    };
    let change = ServiceChange::Put(name.clone(), spec);
    let telling = changed(host, sprite, change, call, asker).await?;
    Ok(stream::answer(
        name,
        telling,
        Until::Fails,
        None,
        connection.stop,
    ))
}

fn spec(wanted: PutService) -> Answer<ServiceSpec> {
    if wanted.cmd.is_empty() {
        return Err(Problem::field("cmd is required"));
    }
    let needs = wanted.needs.unwrap_or_default();
    let needs = needs.iter().map(|need| {
        need.parse::<ServiceName>()
            .map_err(|error| Problem::field(format!("needs: {error}")))
    });
    let port = |port: i64| {
        let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
        port.ok_or_else(|| Problem::field("http_port must be 1 to 65535"))
    };
    Ok(ServiceSpec {
        cmd: wanted.cmd,
        args: wanted.args.unwrap_or_default(),
        env: wanted.env.unwrap_or_default(),
        dir: wanted.dir.filter(|dir| !dir.is_empty()),
        needs: needs.collect::<Answer<_>>()?,
        http_port: wanted.http_port.map(port).transpose()?,
    })
}

async fn changed(
    host: &Host,
    sprite: &Sprite,
    change: ServiceChange,
    call: ServicesCall,
    asker: Asker,
) -> Answer<ServiceTelling> {
    let changed = host.change_service(sprite.id, change, call, asker).await;
    changed.map_err(|error| refused(error, sprite))
}

/// What a service is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Start,
    Restart,
    Stop,
}

pub(crate) async fn told_of(
    host: &Host,
    sprite: &Sprite,
    ServiceOf(name): ServiceOf,
    (told, asker): (Told, Asker),
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let query = connection::query(&parts)?;
    let watch_ms = |query: &Query| duration(query, "duration", WATCHED).map(milliseconds);
    let (change, call, until) = match told {
        Told::Start => {
            let watch_ms = watch_ms(&query)?;
            let call = ServicesCall::Start {
                name: name.clone(),
                watch_ms,
            };
            (ServiceChange::Start(name.clone()), call, Until::Fails)
        }
        Told::Restart => {
            let watch_ms = watch_ms(&query)?;
            let call = ServicesCall::Restart {
                name: name.clone(),
                watch_ms,
            };
            (ServiceChange::Start(name.clone()), call, Until::Fails)
        }
        Told::Stop => {
            let timeout_ms = milliseconds(duration(&query, "timeout", GRACE)?);
            let call = ServicesCall::Stop {
                name: name.clone(),
                timeout_ms,
            };
            (ServiceChange::Stop(name.clone()), call, Until::Told)
        }
    };
    let telling = changed(host, sprite, change, call, asker).await?;
    Ok(stream::answer(name, telling, until, None, connection.stop))
}

pub(crate) async fn delete_of(
    host: &Host,
    sprite: &Sprite,
    ServiceOf(name): ServiceOf,
    asker: Asker,
) -> Answer<Response> {
    let call = ServicesCall::Stop {
        name: name.clone(),
        timeout_ms: milliseconds(GRACE),
    };
    let change = ServiceChange::Delete(name);
    match host.change_service(sprite.id, change, call, asker).await {
        Ok(mut telling) => loop {
            match telling.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return Err(refused(error, sprite)),
            }
        },
        // It had no process.
        Err(ServiceError::Refused(failure))
            if matches!(
                failure.kind,
                FailureKind::SessionEnded | FailureKind::NoSession
            ) => {}
        Err(error) => return Err(refused(error, sprite)),
    }
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn signal_of(
    host: &Host,
    sprite: &Sprite,
    request: Body,
    asker: Asker,
) -> Answer<Response> {
    let wanted: SignalService = body::json(request).await?;
    let name: ServiceName = match wanted.name.as_str() {
        "" => return Err(Problem::field("name is required")),
        name => name
            .parse()
            .map_err(|error| Problem::field(format!("name: {error}")))?,
    };
    let text = match wanted.signal {
        Value::String(text) => text,
        Value::Null => return Err(Problem::field("signal is required")),
        other => other.to_string(),
    };
    let signal: Signal = text
        .parse()
        .map_err(|error| Problem::field(format!("signal: {error}")))?;
    let services = host.services(sprite.id).await;
    let services = services.map_err(|error| refused(error, sprite))?;
    services.get(&name).ok_or_else(|| no_service(&name))?;
    let call = ServicesCall::Signal {
        name,
        signal: signal.number(),
    };
    let asked = host.ask_services(sprite.id, call, asker).await;
    asked.map_err(|error| refused(error, sprite))?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
