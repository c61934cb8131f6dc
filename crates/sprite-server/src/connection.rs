//! What a request knows about its connection.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sprite_api::query::Query;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::UrlScheme;
use crate::problem::Answer;

/// Shared by all connections of a server: what outlives a request is run here, and told to stop here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
    /// Waited for when the server stops.
    pub(crate) tasks: TaskTracker,
}

impl<S: Sync> FromRequestParts<S> for Connection {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// How a connection came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its other end.
    pub(crate) peer: IpAddr,
    /// How it is spoken.
    pub(crate) scheme: UrlScheme,
}

impl Default for Arrival {
    fn default() -> Self {
        Self {
            peer: Ipv4Addr::UNSPECIFIED.into(),
            scheme: UrlScheme::Http,
        }
    }
}

/// A query too long for the HTTP parser, taken out of the request line before the parser saw it.
#[derive(Debug, Clone)]
pub(crate) struct LongQuery(Arc<Mutex<Option<Taken>>>);

#[derive(Debug)]
struct Taken {
    text: String,
    /// Such queries are few at a time, so that their memory is bounded.
    _permit: OwnedSemaphorePermit,
}

impl LongQuery {
    pub(crate) fn new(text: String, permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(Taken {
            text,
            _permit: permit,
        }))))
    }

    fn take(&self) -> Option<Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The query of a request.
///
/// # Errors
/// It is not form encoding.
pub(crate) fn query(parts: &Parts) -> Answer<Query> {
    let long = parts
        .extensions
        .get::<LongQuery>()
        .and_then(LongQuery::take);
    let text = match &long {
        Some(taken) => &taken.text,
        None => parts.uri.query().unwrap_or_default(),
    };
    Ok(Query::parse(text)?)
}
