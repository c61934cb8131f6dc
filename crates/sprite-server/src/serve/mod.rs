//! Connections: accepted, bounded, and ended in order.

pub(crate) mod head;
mod replay;
mod silence;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::silence::Heard;
pub use self::tls::{Tls, TlsError};
use crate::config::UrlScheme;
use crate::connection::{Arrival, Connection, LongQuery};

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

/// How long a server that ends waits for the first request of a connection that it has accepted: the request may be
/// on its way, and who sent it cannot know that it was not read.
const FIRST_WORD_AT_STOP: Duration = Duration::from_millis(500);

/// Heads that are longer than the parser takes, at once: they are large, and seldom.
const LONG_HEADS: usize = 16;

/// Requests at once on one connection of HTTP/2.
const HTTP2_STREAMS: u32 = 128;
/// Longest head of a request of HTTP/2 in bytes.
const HTTP2_HEAD: u32 = 64 << 10;

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
    run(listener, None, router, limits, shutdown).await;
}

/// Like [`serve`], over TLS: HTTP/2 with clients that speak it, and HTTP/1.1.
///
/// # Cancel safety
/// Like [`serve`].
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let limits = ServeLimits::default();
    run(listener, Some(tls), router, limits, shutdown).await;
}

async fn run(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Connection::default();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let served = Served {
        router,
        limits,
        shared: shared.clone(),
        long_heads: Arc::new(Semaphore::new(LONG_HEADS)),
        tls,
    };
    let accept = async {
        loop {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let (tcp, peer) = next_connection(&listener).await;
            let serving = serve_one(tcp, peer.ip().to_canonical(), served.clone());
            shared.tasks.spawn(async move {
                serving.await;
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

async fn next_connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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

/// What every connection of a listener has.
#[derive(Clone)]
struct Served {
    router: Router,
    limits: ServeLimits,
    shared: Connection,
    long_heads: Arc<Semaphore>,
    tls: Option<Tls>,
}

async fn serve_one(tcp: TcpStream, peer: IpAddr, served: Served) {
    // A gain, no need: small messages go at once.
    let _ = tcp.set_nodelay(true);
    let (within, stop) = (served.limits.first_line_within, served.shared.stop.clone());
    let heard = Heard::new(tcp, served.limits.silent_for);
    let arrival = |scheme| Arrival { peer, scheme };
    let Some(tls) = &served.tls else {
        return speak_http1(heard, arrival(UrlScheme::Http), served).await;
    };
    let greeted = tokio::select! {
        greeted = timeout(within, tls.accept(heard)) => greeted,
        () = over(&stop, std::future::pending()) => return,
    };
    match greeted {
        Ok(Ok((io, true))) => speak_http2(io, arrival(UrlScheme::Https), served).await,
        Ok(Ok((io, false))) => speak_http1(io, arrival(UrlScheme::Https), served).await,
        Ok(Err(error)) => tracing::debug!(%error, "greet a client of TLS"),
        Err(_) => {}
    }
}

/// Ready when the server ends and the connection's first request `began`, or did not for long enough.
async fn over(stop: &CancellationToken, began: impl Future<Output = ()>) {
    stop.cancelled().await;
    // Whichever comes first.
    let _ = timeout(FIRST_WORD_AT_STOP, began).await;
}

async fn speak_http1<S>(io: S, arrival: Arrival, served: Served)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served {
        router,
        limits,
        shared,
        long_heads,
        ..
    } = served;
    let opened = tokio::select! {
        opened = timeout(limits.first_line_within, head::open(io, &long_heads)) => opened,
        () = over(&shared.stop, std::future::pending()) => return,
    };
    let Ok(Ok(Some((io, long_query)))) = opened else {
        return;
    };
    let (stop, began) = (shared.stop.clone(), CancellationToken::new());
    let service = service(router, shared, arrival, long_query, began.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over(&stop, began.cancelled()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn speak_http2<S>(io: S, arrival: Arrival, served: Served)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served {
        router,
        limits,
        shared,
        ..
    } = served;
    let (stop, began) = (shared.stop.clone(), CancellationToken::new());
    let service = service(router, shared, arrival, None, began.clone());
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD)
        // A client that is there and has nothing to say is asked whether it is.
        .keep_alive_interval(Some(limits.head_within))
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over(&stop, began.cancelled()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

type Answered = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// The router, with what a request has to know of its connection; the first request cancels `began`.
fn service(
    router: Router,
    shared: Connection,
    arrival: Arrival,
    long_query: Option<LongQuery>,
    began: CancellationToken,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = Answered,
> {
    let router = TowerToHyperService::new(router);
    // For the first request of the connection only; the slot is empty afterwards.
    let long_query = std::sync::Mutex::new(long_query);
    service_fn(move |mut request: Request<Incoming>| {
        began.cancel();
        request.extensions_mut().insert(shared.clone());
        request.extensions_mut().insert(arrival);
        let taken = long_query
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(query) = taken {
            request.extensions_mut().insert(query);
        }
        let answer = hyper::service::Service::call(&router, request);
        let answer: Answered =
            Box::pin(async move { Ok(answer.await.unwrap_or_else(|never| match never {})) });
        answer
    })
}
