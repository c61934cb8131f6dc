//! HTTP on calls from inside.
//!
//! A sprite can waste its own share and no more: so many connections at once and so many turns a second (which the
//! host bounds), short heads, short bodies, and a deadline on every head and every answer.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sprite_api::ErrorKind;
use sprite_host::{Call, Calls};
use tokio::time::timeout;
use tower_service::Service;

use super::orgs::{self, Leash};
use super::{Inside, router};
use crate::connection::Connection;
use crate::problem::Problem;
use crate::routes::App;

/// How long a head may take, and how long a connection may wait for its next request: whoever asks is on this
/// very computer.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Longest head in bytes.
const LONGEST_HEAD: usize = 32 << 10;
const MOST_HEADERS: usize = 64;
/// Longest body in bytes: a task is some fifty.
const LONGEST_BODY: usize = 64 << 10;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long calls may take to end when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is ready, then lets what is under way finish.
///
/// # Cancel safety
/// Cancelled, no further call is taken; those that there are go on.
pub(crate) async fn serve(app: App, mut calls: Calls, shutdown: impl Future<Output = ()>) {
    let router = router(app);
    let shared = Connection::default();
    let accept = async {
        while let Some(call) = calls.next().await {
            let served = serve_one(call, router.clone(), shared.clone());
            shared.tasks.spawn(served);
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    shared.stop.cancel();
    shared.tasks.close();
    // What is left ends with the machines' streams.
    let _ = timeout(STOP_WITHIN, shared.tasks.wait()).await;
}

async fn serve_one(call: Call, router: Router, shared: Connection) {
    let Call {
        sprite,
        stream,
        pace,
        over,
    } = call;
    let (leash, stop) = (Leash::new(over.clone()), shared.stop.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let (router, pace) = (router.clone(), pace.clone());
        let extensions = request.extensions_mut();
        extensions.insert(Inside(sprite));
        extensions.insert(leash.clone());
        extensions.insert(shared.clone());
        async move {
            pace.turn().await;
            Ok::<Response, Infallible>(answer(router, request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        // `printf … | nc -U` says all and then waits.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // What is under way ends here, with its connection.
        () = over.cancelled() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %sprite, "call from inside ended");
    }
}

/// The answer to a request. What is passed on to the public API has the bounds that it has there.
async fn answer(mut router: Router, request: hyper::Request<Incoming>) -> Response {
    if request.uri().path().starts_with(orgs::PREFIX) {
        return match router.call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
    }
    let request: Request = request.map(|body| Body::new(Limited::new(body, LONGEST_BODY)));
    match timeout(ANSWER_WITHIN, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => late().into_response(),
    }
}

fn late() -> Problem {
    Problem::new(ErrorKind::Unavailable, "it took too long")
}
