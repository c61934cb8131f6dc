//! Services, from inside: as from outside, and holding nothing. Source: behaviour reference §1.9, §1.13.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::service::{PutService, Service, ServiceEvent, SignalService};
use sprite_host::Asker;

use super::Me;
use crate::connection::Connection;
use crate::problem::Answer;
use crate::routes::App;
use crate::services::{self, ServiceOf, Told};

/// List the services
#[utoipa::path(
    get, path = "/v1/services", tag = "services", operation_id = "list_services",
    responses(
        (status = 200, description = "Each with its state", body = Vec<Service>),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    services::list_of(&app.host, &sprite, Asker::Inside).await
}

/// Show a service
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = "services", operation_id = "get_service",
    params(("service" = String, Path, description = "Name of the service")),
    responses(
        (status = 200, description = "The service", body = Service),
        (status = 404, description = "There is no such service", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
) -> Answer<Response> {
    services::show_of(&app.host, &sprite, service, Asker::Inside).await
}

/// Create a service, or change it
#[utoipa::path(
    put, path = "/v1/services/{service}", tag = "services", operation_id = "put_service",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    request_body = PutService,
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The service is described wrongly", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 409, description = "Another service has an HTTP port", body = ErrorBody),
    )
)]
pub(crate) async fn put(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let asker = Asker::Inside;
    services::put_of(&app.host, &sprite, service, asker, connection, request).await
}

/// Delete a service
#[utoipa::path(
    delete, path = "/v1/services/{service}", tag = "services", operation_id = "delete_service",
    params(("service" = String, Path, description = "Name of the service")),
    responses(
        (status = 204, description = "There is none of that name"),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "Another service needs it", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
) -> Answer<Response> {
    services::delete_of(&app.host, &sprite, service, Asker::Inside).await
}

/// Signal a service
#[utoipa::path(
    post, path = "/v1/services/signal", tag = "services", operation_id = "signal_service",
    request_body = SignalService,
    responses(
        (status = 204, description = "It was sent"),
        (status = 400, description = "There is no such signal", body = ErrorBody),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "The service is not running", body = ErrorBody),
    )
)]
pub(crate) async fn signal(State(app): State<App>, Me(sprite): Me, body: Body) -> Answer<Response> {
    services::signal_of(&app.host, &sprite, body, Asker::Inside).await
}

/// Start a service
#[utoipa::path(
    post, path = "/v1/services/{service}/start", tag = "services", operation_id = "start_service",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such service", body = ErrorBody),
    )
)]
pub(crate) async fn start(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Start, Asker::Inside);
    services::told_of(&app.host, &sprite, service, what, connection, request).await
}

/// Stop a service
#[utoipa::path(
    post, path = "/v1/services/{service}/stop", tag = "services", operation_id = "stop_service",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("timeout" = Option<String>, Query, description = "How long its processes may take (`10s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "It is stopped already", body = ErrorBody),
    )
)]
pub(crate) async fn stop(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Stop, Asker::Inside);
    services::told_of(&app.host, &sprite, service, what, connection, request).await
}

/// Restart a service
#[utoipa::path(
    post, path = "/v1/services/{service}/restart", tag = "services", operation_id = "restart_service",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("duration" = Option<String>, Query, description = "How long it is watched (`5s`, the default)"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = ServiceEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such service", body = ErrorBody),
    )
)]
pub(crate) async fn restart(
    State(app): State<App>,
    Me(sprite): Me,
    service: ServiceOf,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let what = (Told::Restart, Asker::Inside);
    services::told_of(&app.host, &sprite, service, what, connection, request).await
}
