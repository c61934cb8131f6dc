//! Connections: accepted, bounded, and ended in order.

mod head;
mod replay;
mod silence;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use self::silence::Heard;
use crate::connection::Connection;

/// Bounds on what strangers may use up.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long a new connection may take for its first request line.
    pub first_line_within: Duration,
    /// How long a head may take, and how long a connection may wait for its next request.
    pub head_within: Duration,
    /// How long the system of a peer may leave everything unanswered before the peer counts as gone.
    pub silent_for: Duration,
    /// How long connections may take to end when the server stops.
    pub stop_within: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            first_line_within: Duration::from_secs(10),
            // Longer than clients keep idle connections, so that they end them and not we: a request that
            // crosses our end would be lost.
            head_within: Duration::from_secs(120),
            // Longer than a change of networks takes, short beside what an awake sprite costs.
            silent_for: Duration::from_secs(90),
            stop_within: Duration::from_secs(10),
        }
    }
}

/// Heads that are longer than the parser takes, at once: they are large, and seldom.
const LONG_HEADS: usize = 16;

/// Pause after an error of accept that is not the connection's own: too many open files, no memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready, then ends every connection in order: requests are finished, WebSockets are
/// closed with 1001, and what is left after 10 s is dropped.
///
/// # Cancel safety
/// Cancelled, no new connection is accepted; those that there are go on without an owner.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_with(listener, router, ServeLimits::default(), shutdown).await;
}

/// Like [`serve`], with other limits.
///
/// # Cancel safety
/// Like [`serve`].
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Connection::default();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let long_heads = Arc::new(Semaphore::new(LONG_HEADS));
    let accept = async {
        loop {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let tcp = next_connection(&listener).await;
            let served = serve_one(
                tcp,
                router.clone(),
                limits,
                shared.clone(),
                long_heads.clone(),
            );
            shared.tasks.spawn(async move {
                served.await;
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    drop(listener);
    shared.stop.cancel();
    shared.tasks.close();
    if timeout(limits.stop_within, shared.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = shared.tasks.len(), "connections did not end in time");
    }
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return tcp,
            Err(error) if of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_one(
    tcp: TcpStream,
    router: Router,
    limits: ServeLimits,
    shared: Connection,
    long_heads: Arc<Semaphore>,
) {
    // A gain, no need: small messages go at once.
    let _ = tcp.set_nodelay(true);
    let heard = Heard::new(tcp, limits.silent_for);
    let opened = tokio::select! {
        opened = timeout(limits.first_line_within, head::open(heard, &long_heads)) => opened,
        () = shared.stop.cancelled() => return,
    };
    let Ok(Ok(Some((io, long_query)))) = opened else {
        return;
    };
    let router = TowerToHyperService::new(router);
    let stop = shared.stop.clone();
    // For the first request of the connection only; the slot is empty afterwards.
    let long_query = std::sync::Mutex::new(long_query);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shared.clone());
        let taken = long_query
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(query) = taken {
            request.extensions_mut().insert(query);
        }
        let answer = hyper::service::Service::call(&router, request);
        async move { Ok::<Response, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
