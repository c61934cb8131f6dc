//! A request to the program that listens in a sprite, and its answer back.
//!
//! Bodies pass as they come, both ways at once and at the pace of the slower side. A client that wants to hear
//! `100 Continue` before it sends a body hears the program's, or its refusal. When the program switches protocols,
//! bytes pass as they are from then on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sprite_api::ErrorKind;
use sprite_api::proxy::ProxyHello;
use sprite_host::{Awake, Hold, HttpTarget, Sprite};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Edge;
use super::headers::{self, Authorization, Way};
use super::places::Slot;
use super::program::{self, Program};
use crate::connection::Connection;
use crate::problem::{Answer, Problem};
use crate::{proxy, services};

/// How long a program may leave a client without `100 Continue` that waits for it: then the body is sent all the
/// same, for many programs do not know of it. Source: RFC 9110 §10.1.1.
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);

/// How long one end of a switched connection may go on after the other has ended: a program that never ends must not
/// keep its sprite awake for a client that is gone.
const LINGER: Duration = Duration::from_secs(10);

/// A request on its way.
pub(super) struct Passage {
    pub(super) sprite: Sprite,
    pub(super) authorization: Authorization,
    pub(super) way: Way,
    /// What outlives requests.
    pub(super) connection: Connection,
}

/// How long a service may take from its start until it listens, before a visitor is told that nothing does.
const SERVICE_WITHIN: Duration = Duration::from_secs(8);

impl Edge {
    /// Wakes the sprite, and brings it the request.
    ///
    /// # Errors
    /// It did not wake, nothing listens, or what listens does not speak HTTP.
    ///
    /// # Cancel safety
    /// Cancelled, the sprite's program sees a connection that broke.
    pub(super) async fn forward(&self, mut request: Request, passage: Passage) -> Answer<Response> {
        let Passage {
            sprite,
            authorization,
            way,
            connection,
        } = passage;
        let host = &self.app.host;
        let most = self.app.config.url_requests;
        let slot = self.places.enter(sprite.id, most);
        let slot = slot.ok_or_else(|| busy(most))?;
        let awake = host.awake(sprite.id).await;
        let mut awake = awake.map_err(|error| Problem::waking(error, sprite.id, &sprite.name))?;

        let switch = headers::upgrade(request.headers())
            .filter(|_| request.version() == Version::HTTP_11)
            .is_some()
            .then(|| hyper::upgrade::on(&mut request));
        let request = to_sprite(request, &way, authorization);
        let repeatable = program::is_repeatable(&request);
        let (mut response, program) = self.ask(&sprite, &awake, request, &connection).await?;
        // What is still to come may last: it stands still while the sprite sleeps, like every connection.
        awake.lasts(Hold::Connection);
        let theirs = hyper::upgrade::on(&mut response);
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (switched, switch) {
            (true, Some(ours)) => {
                let mut answer = response.map(|_| Body::empty());
                let protocol = answer.headers().get(header::UPGRADE).cloned();
                headers::from_sprite(answer.headers_mut());
                let upgrade = axum::http::HeaderValue::from_static("upgrade");
                answer.headers_mut().insert(header::CONNECTION, upgrade);
                if let Some(protocol) = protocol {
                    answer.headers_mut().insert(header::UPGRADE, protocol);
                }
                let stop = connection.stop.clone();
                connection.tasks.spawn(async move {
                    tokio::select! {
                        () = switched_to(ours, theirs) => {}
                        () = stop.cancelled() => {}
                    }
                    drop((awake, program, slot));
                });
                Ok(answer)
            }
            (true, None) => Err(Problem::new(
                ErrorKind::BadGateway,
                "the sprite switched to a protocol that nobody asked for",
            )),
            (false, _) => {
                let mut answer = response;
                // Who asks that the connection be logged in does so on that very one.
                let again = repeatable && answer.status() != StatusCode::UNAUTHORIZED;
                headers::from_sprite(answer.headers_mut());
                *answer.version_mut() = Version::HTTP_11;
                Ok(answer.map(|body| {
                    Body::new(Held {
                        body,
                        broken: false,
                        passing: Some(Passing {
                            program,
                            again: again.then_some(connection),
                            _awake: awake,
                            slot,
                        }),
                    })
                }))
            }
        }
    }

    /// Brings the sprite's program the request, on a connection that waits for one if it may be sent twice.
    async fn ask(
        &self,
        sprite: &Sprite,
        awake: &Awake,
        mut request: hyper::Request<Body>,
        connection: &Connection,
    ) -> Answer<(hyper::Response<Incoming>, Program)> {
        let target = self.app.host.http_target(sprite.id).await;
        let target = target.map_err(|error| services::refused(error, sprite))?;
        let port = target.port;
        if program::is_repeatable(&request)
            && let Some(mut program) = self.places.take(sprite.id, port, awake)
        {
            let again = program::again(&request);
            match program.ask(request).await {
                Ok(response) => return checked(response, program),
                // It may have ended while it waited.
                Err(error) => tracing::debug!(%error, sprite = %sprite.id, "a connection ended"),
            }
            request = again;
        }
        let mut program = self.reach(sprite, awake, target, connection).await?;
        match program.ask(request).await {
            Ok(response) => checked(response, program),
            Err(error) => {
                tracing::debug!(%error, sprite = %sprite.id, "no answer of a sprite");
                Err(no_http(port))
            }
        }
    }

    /// Connects to where the sprite's URL leads. A service that has it and does not run is started, and waited for.
    async fn reach(
        &self,
        sprite: &Sprite,
        awake: &Awake,
        target: HttpTarget,
        connection: &Connection,
    ) -> Answer<Program> {
        let host = &self.app.host;
        let HttpTarget { port, service } = target;
        let refused = match self.connect(awake, port, connection).await {
            Ok(connected) => return Ok(connected),
            Err(refused) => refused,
        };
        let Some(service) = service else {
            return Err(refused);
        };
        if let Err(error) = host
            .demand_service(sprite.id, &service, SERVICE_WITHIN)
            .await
        {
            tracing::debug!(%error, sprite = %sprite.id, %service, "a service of a URL does not listen");
            return Err(refused);
        }
        self.connect(awake, port, connection).await
    }

    /// Connects, without the machine's agent where that can be.
    async fn connect(&self, awake: &Awake, port: u16, connection: &Connection) -> Answer<Program> {
        let refused = |message: String| {
            let hint = format!("start a program that listens on port {port} of the sprite");
            Problem::new(ErrorKind::BadGateway, message).with_hint(&hint)
        };
        if let Some(dialled) = awake.dial_reusable(port).await {
            let (dialled, memory) = dialled.map_err(|error| refused(error.to_string()))?;
            return Program::speak(dialled, port, memory, connection).await;
        }
        let hello = ProxyHello {
            host: "localhost".to_owned(),
            port,
            half_close: false,
        };
        let opened = proxy::open_reusable(&self.app.proxies, awake, &hello).await;
        let (stream, memory) = opened.map_err(|problem| refused(problem.message().to_owned()))?;
        Program::speak(stream, port, memory, connection).await
    }
}

/// What an answer is good for: one that has two lengths is none, whichever is meant. Source: RFC 9112 §6.3.
fn checked(
    response: hyper::Response<Incoming>,
    program: Program,
) -> Answer<(hyper::Response<Incoming>, Program)> {
    if headers::has_two_lengths(response.headers()) {
        return Err(no_http(program.port));
    }
    Ok((response, program))
}

fn no_http(port: u16) -> Problem {
    Problem::new(
        ErrorKind::BadGateway,
        format!("what listens on port {port} of the sprite did not answer as HTTP"),
    )
}

fn busy(most: usize) -> Problem {
    let message = format!("the sprite's URL is busy: {most} requests and WebSockets are open");
    Problem::new(ErrorKind::Unavailable, message)
        .with_hint("close some of them; so many at once are allowed for one sprite")
}

/// The request as the sprite's program gets it.
fn to_sprite(request: Request, way: &Way, authorization: Authorization) -> hyper::Request<Body> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    parts.uri = match path {
        Some(path) => Uri::from(path),
        None => Uri::from_static("/"),
    };
    parts.version = Version::HTTP_11;
    let waits = parts
        .headers
        .get(header::EXPECT)
        .is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    headers::to_sprite(&mut parts.headers, way, authorization);
    // What is ours to know stays here.
    parts.extensions = axum::http::Extensions::new();
    if !waits || parts.method == Method::GET || body.is_end_stream() {
        return hyper::Request::from_parts(parts, body);
    }
    let (tell, told) = watch::channel(false);
    let body = Body::new(Awaited {
        body,
        go: Some(Box::pin(go(told))),
    });
    let mut request = hyper::Request::from_parts(parts, body);
    hyper::ext::on_informational(&mut request, move |informed| {
        if informed.status() == StatusCode::CONTINUE {
            tell.send_replace(true);
        }
    });
    request
}

/// Until the program says that the body may come, or has said nothing for too long.
async fn go(mut told: watch::Receiver<bool>) {
    let told = told.wait_for(|told| *told).map(|told| told.is_ok());
    if let Ok(false) = timeout(CONTINUE_WITHIN, told).await {
        // Nobody will tell: the answer is there, and the body is not wanted.
        std::future::pending().await
    }
}

/// A body that begins when it may. Its first poll is what makes the server tell the client to send it.
struct Awaited {
    body: Body,
    go: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(go) = &mut self.go {
            std::task::ready!(go.as_mut().poll(cx));
            self.go = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A body that keeps its sprite awake until it has ended.
struct Held {
    body: Incoming,
    broken: bool,
    passing: Option<Passing>,
}

/// What an answer keeps until its end.
struct Passing {
    program: Program,
    /// Where the program's connection may wait for another request, if it may.
    again: Option<Connection>,
    _awake: Awake,
    slot: Slot,
}

impl Held {
    /// The answer has come to its end.
    fn end(&mut self) {
        let Some(passing) = self.passing.take() else {
            return;
        };
        let Passing {
            program,
            again,
            _awake,
            slot,
        } = passing;
        if let Some(connection) = again {
            slot.give(program, &connection);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody asks once more whose length is known; whoever leaves before the end takes the connection along.
        if !self.broken && self.body.is_end_stream() {
            self.end();
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.broken = true,
            None if self.broken => {}
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Passes the bytes of a protocol that is none of our business, until both directions have ended or one broke.
async fn switched_to(ours: OnUpgrade, theirs: OnUpgrade) {
    let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else {
        return;
    };
    let (our_read, our_write) = tokio::io::split(TokioIo::new(ours));
    let (their_read, their_write) = tokio::io::split(TokioIo::new(theirs));
    let (up, down) = (pass(our_read, their_write), pass(their_read, our_write));
    tokio::pin!(up, down);
    // What broke ends both; what ended leaves the other for a while.
    tokio::select! {
        ended = &mut up => if ended.is_ok() {
            let _ = timeout(LINGER, down).await;
        },
        ended = &mut down => if ended.is_ok() {
            let _ = timeout(LINGER, up).await;
        },
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}
