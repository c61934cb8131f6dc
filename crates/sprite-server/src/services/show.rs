//! Looking at services and at what they said.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::response::Response;
use sprite_agent_api::services::{self, ServicesCall, ServicesReply};
use sprite_api::service::{self, ServiceEvent, ServiceStatus};
use sprite_api::{ErrorBody, Stamp};
use sprite_host::{Asker, Host, Service, Sprite};
use sprite_types::{ServiceName, SpriteStatus};
use std::time::Duration;

use super::stream::{self, Until};
use super::{ServiceOf, duration, milliseconds, no_service, refused};
use crate::answer;
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::sleep::Sleep;

/// List a sprite's services
///
/// In the order of their names, each with its state. Wakes a sprite whose processes sleep; one that has none is not
/// woken.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/services", tag = "services", operation_id = "list_services",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The services", body = Vec<service::Service>),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, named: Named) -> Answer<Response> {
    list_of(&app.host, &named.sprite, Asker::Outside).await
}

/// Show a service
///
/// As in the list.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/services/{service}", tag = "services", operation_id = "get_service",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
    ),
    responses(
        (status = 200, description = "The service", body = service::Service),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    named: Named,
    service: ServiceOf,
) -> Answer<Response> {
    show_of(&app.host, &named.sprite, service, Asker::Outside).await
}

/// What a service said
///
/// What is kept of its output, then what comes for `duration`. Wakes the sprite; following keeps nothing awake, and
/// ends when the sprite falls asleep.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/services/{service}/logs", tag = "services", operation_id = "service_logs",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("service" = String, Path, description = "Name of the service"),
        ("lines" = Option<u64>, Query, description = "So many of the last lines; absent: all that are kept"),
        ("duration" = Option<String>, Query, description = "How long what comes is told (`0s`, the default: not)"),
    ),
    responses(
        (status = 200, description = "Lines and what happens", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such sprite or service", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn logs(
    State(app): State<App>,
    named: Named,
    ServiceOf(name): ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let (sprite, host) = (&named.sprite, &app.host);
    let query = connection::query(&parts)?;
    let follow = duration(&query, "duration", Duration::ZERO)?;
    let lines = match query.get("lines").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Problem::field("lines must be a number"))?,
        ),
    };
    let sleep = (!follow.is_zero()).then(|| Sleep::of(host, sprite));
    find(host, sprite, &name).await?;
    let call = ServicesCall::Logs {
        name: name.clone(),
        lines,
        follow_ms: milliseconds(follow),
    };
    let asked = host.ask_services(sprite.id, call, Asker::Outside).await;
    let mut telling = asked.map_err(|error| refused(error, sprite))?;
    if sleep.is_some() {
        telling.release();
    }
    Ok(stream::answer(
        name,
        telling,
        Until::Told,
        sleep,
        connection.stop,
    ))
}

pub(crate) async fn list_of(host: &Host, sprite: &Sprite, asker: Asker) -> Answer<Response> {
    let services = host.services(sprite.id).await;
    let services = services.map_err(|error| refused(error, sprite))?;
    let services = services.services.clone();
    Ok(answer::ok(
        &with_states(host, sprite, services, asker).await?,
    ))
}

pub(crate) async fn show_of(
    host: &Host,
    sprite: &Sprite,
    ServiceOf(name): ServiceOf,
    asker: Asker,
) -> Answer<Response> {
    let service = find(host, sprite, &name).await?;
    let shown = with_states(host, sprite, vec![service], asker).await?;
    shown
        .first()
        .map(answer::ok)
        .ok_or_else(|| no_service(&name))
}

/// Finds a service without waking anybody.
async fn find(host: &Host, sprite: &Sprite, name: &ServiceName) -> Answer<Service> {
    let services = host.services(sprite.id).await;
    let services = services.map_err(|error| refused(error, sprite))?;
    services.get(name).cloned().ok_or_else(|| no_service(name))
}

async fn with_states(
    host: &Host,
    sprite: &Sprite,
    services: Vec<Service>,
    asker: Asker,
) -> Answer<Vec<service::Service>> {
    let mut states = match (services.is_empty(), sprite.status) {
        // Nothing runs in a sprite without a machine.
        (true, _) | (false, SpriteStatus::Cold) => HashMap::new(),
        (false, SpriteStatus::Running | SpriteStatus::Warm) => states(host, sprite, asker).await?,
    };
    let shown = services.into_iter().map(|service| {
        let state = states.remove(&service.name);
        let state = state.unwrap_or_else(|| stopped(&service.name));
        shown(service, state)
    });
    Ok(shown.collect())
}

async fn states(
    host: &Host,
    sprite: &Sprite,
    asker: Asker,
) -> Answer<HashMap<ServiceName, services::ServiceState>> {
    let asked = host
        .ask_services(sprite.id, ServicesCall::States, asker)
        .await;
    let mut telling = asked.map_err(|error| refused(error, sprite))?;
    let told = telling.next().await;
    match told.map_err(|error| refused(error, sprite))? {
        Some(ServicesReply::States { states }) => Ok(states
            .into_iter()
            .map(|state| (state.name.clone(), state))
            .collect()),
        Some(
            ServicesReply::Applied
            | ServicesReply::Event(_)
            | ServicesReply::Listening
            | ServicesReply::Failed(_),
        )
        | None => Err(Problem::machine_lost("the machine answered something else")),
    }
}

fn stopped(name: &ServiceName) -> services::ServiceState {
    services::ServiceState {
        name: name.clone(),
        status: services::ServiceStatus::Stopped,
        pid: None,
        started_unix_us: None,
        error: String::new(),
        restart_count: 0,
        next_restart_unix_us: None,
    }
}

fn shown(service: Service, state: services::ServiceState) -> service::Service {
    let stamp = |us: i64| Stamp::from_unix_nanos(i128::from(us) * 1000);
    let Service { name, spec, run: _ } = service;
    service::Service {
        name: name.to_string(),
        cmd: spec.cmd,
        args: spec.args,
        env: spec.env,
        dir: spec.dir,
        needs: spec.needs.iter().map(ToString::to_string).collect(),
        http_port: spec.http_port.map(std::num::NonZeroU16::get),
        state: Some(service::ServiceState {
            name: name.to_string(),
            status: match state.status {
                services::ServiceStatus::Stopped => ServiceStatus::Stopped,
                services::ServiceStatus::Starting => ServiceStatus::Starting,
                services::ServiceStatus::Running => ServiceStatus::Running,
                services::ServiceStatus::Stopping => ServiceStatus::Stopping,
                services::ServiceStatus::Failed => ServiceStatus::Failed,
            },
            pid: state.pid,
            started_at: state.started_unix_us.map(stamp),
            error: state.error,
            restart_count: state.restart_count,
            next_restart_at: state.next_restart_unix_us.map(stamp),
        }),
    }
}
