//! Services of a sprite, from outside. Source: behaviour reference §1.9.
//!
//! What changes services is durable and known to the machine before it is answered; the answer then tells line by line
//! what comes of it. The same functions answer from inside, where a request holds nothing.

mod change;
mod show;
mod stream;

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sprite_agent_api::message::FailureKind;
use sprite_api::ErrorKind;
use sprite_api::query::Query;
use sprite_api::unit;
use sprite_host::{ServiceChangeError, ServiceError, Sprite};
use sprite_types::{ServiceName, ServicesError};

use crate::named::param;
use crate::problem::{Answer, Problem};

pub(crate) use change::{
    __path_delete, __path_put, __path_restart, __path_signal, __path_start, __path_stop, Told,
    delete, delete_of, put, put_of, restart, signal, signal_of, start, stop, told_of,
};
pub(crate) use show::{__path_list, __path_logs, __path_show, list, list_of, logs, show, show_of};

/// How long a service is watched after it was started, if nothing is said.
const WATCHED: Duration = Duration::from_secs(5);

/// How long its process may take to end, if nothing is said.
const GRACE: Duration = Duration::from_secs(10);

/// The service that a path names.
#[derive(Debug)]
pub(crate) struct ServiceOf(pub(crate) ServiceName);

impl<S: Sync> FromRequestParts<S> for ServiceOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let name = param(parts, "service").await?;
        name.parse()
            .map(Self)
            .map_err(|error| Problem::field(format!("service: {error}")))
    }
}

fn duration(query: &Query, key: &str, default: Duration) -> Answer<Duration> {
    match query.get(key).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => {
            unit::parse_duration(text).map_err(|error| Problem::field(format!("{key}: {error}")))
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn no_service(name: &ServiceName) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("service not found: {name}"))
}

pub(crate) fn refused(error: ServiceError, sprite: &Sprite) -> Problem {
    let message = error.to_string();
    match error {
        ServiceError::Spec(_) => Problem::field(message),
        ServiceError::Change(error) => not_changed(error),
        ServiceError::Wake(error) => Problem::waking(error, sprite.id, &sprite.name),
        ServiceError::Refused(failure) => match failure.kind {
            FailureKind::NoSession => Problem::new(ErrorKind::NotFound, message),
            FailureKind::SessionEnded => Problem::new(ErrorKind::Conflict, message),
            FailureKind::Invalid
            | FailureKind::NotReady
            | FailureKind::Limit
            | FailureKind::Dir
            | FailureKind::System
            | FailureKind::Unknown => Problem::refused(failure, None),
        },
        ServiceError::Lost { .. } => Problem::machine_lost(message),
        ServiceError::Closing => Problem::new(ErrorKind::Unavailable, message),
        ServiceError::Catalog(_) => Problem::internal(&error),
    }
}

fn not_changed(error: ServiceChangeError) -> Problem {
    let message = error.to_string();
    match error {
        ServiceChangeError::NotFound(name) => no_service(&name),
        ServiceChangeError::Needed { .. } => Problem::new(ErrorKind::Conflict, message)
            .with_hint("change or delete the service that needs it first"),
        ServiceChangeError::Services(ServicesError::HttpPort { .. }) => {
            Problem::new(ErrorKind::Conflict, message)
        }
        ServiceChangeError::Services(
            ServicesError::TooMany
            | ServicesError::TooLong
            | ServicesError::Unknown { .. }
            | ServicesError::Cycle { .. },
        ) => Problem::field(message),
        ServiceChangeError::NoSprite => Problem::no_sprite(),
        ServiceChangeError::Catalog(_) => Problem::internal(&error),
    }
}
