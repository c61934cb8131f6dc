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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::Inside;
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
    let router = super::router(app);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let accept = async {
        while let Some(call) = calls.next().await {
            tasks.spawn(serve_one(call, router.clone(), stop.clone()));
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    stop.cancel();
    tasks.close();
    // What is left ends with the machines' streams.
    let _ = timeout(STOP_WITHIN, tasks.wait()).await;
}

async fn serve_one(call: Call, router: Router, stop: CancellationToken) {
    let Call {
        sprite,
        stream,
        pace,
    } = call;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut router, pace) = (router.clone(), pace.clone());
        async move {
            pace.turn().await;
            let mut request: Request =
                request.map(|body| Body::new(Limited::new(body, LONGEST_BODY)));
            request.extensions_mut().insert(Inside(sprite));
            let answered = timeout(ANSWER_WITHIN, router.call(request)).await;
            Ok::<Response, Infallible>(match answered {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => late().into_response(),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        // `printf … | nc -U` says all and then waits.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %sprite, "call from inside ended");
    }
}

fn late() -> Problem {
    Problem::new(ErrorKind::Unavailable, "it took too long")
}
