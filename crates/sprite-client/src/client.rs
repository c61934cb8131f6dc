//! The client: one server, one token, a pool of connections.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::body;
use crate::connect::Connector;
use crate::error::{ApiError, Error};
use crate::sprite::Sprite;
use crate::url::{ServerUrl, ServerUrlError, Target};

/// The body of a request: bytes, or what comes bit by bit.
pub(crate) type Upload = UnsyncBoxBody<Bytes, io::Error>;

/// Longest request target. Source: the `http` crate, whose URIs end below 64 KiB; servers commonly allow less.
const TARGET_LIMIT: usize = 65_000;
/// How long one call may be told "the sprite is starting, try again" before that is its result.
pub(crate) const STARTING_LIMIT: Duration = Duration::from_secs(60);
/// Longest pause between two tries, whatever the server asks for.
const RETRY_PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// A client of one server, acting for the organisation that its token belongs to.
///
/// Cheap to clone; clones share connections. The token is sent to the server of the address and to no other:
/// redirects are not followed.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sprite_client::Client;
///
/// let client = Client::new("http://127.0.0.1:7774", &std::env::var("SPRITE_TOKEN")?)?;
/// client.create("builder").send().await?;
/// let output = client.sprite("builder").command("uname").arg("-a").output().await?;
/// assert!(output.status.success());
/// client.sprite("builder").destroy().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    server: Arc<ServerUrl>,
    authorization: HeaderValue,
    user_agent: HeaderValue,
    connector: Connector,
    pool: legacy::Client<Connector, Upload>,
    answer_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("Client")
            .field("server", &self.inner.server.to_string())
            .finish_non_exhaustive()
    }
}

/// Why a client cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is not one.
    #[error(transparent)]
    Address(#[from] ServerUrlError),
    /// The token is empty or has characters that no header can carry.
    #[error("the token is not one line of printable characters")]
    Token,
    /// The user agent has characters that no header can carry.
    #[error("the user agent is not one line of printable characters")]
    UserAgent,
}

/// Settings of a [`Client`] before it is made.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    user_agent: String,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            user_agent: concat!("sprite-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(120),
        }
    }
}

impl ClientBuilder {
    /// The `User-Agent` of every request; `sprite-client/<version>` by default.
    #[must_use]
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.user_agent = text.into();
        self
    }

    /// How long connecting may take, TLS included; 10 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long the server may take to begin its answer; 120 s by default, since a call may wake a sprite.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address, the token or the user agent is not usable.
    pub fn build(self, server: &str, token: &str) -> Result<Client, BuildError> {
        self.build_for(server.parse()?, token)
    }

    /// As [`build`](Self::build), for an address that is parsed already.
    ///
    /// # Errors
    /// When the token or the user agent is not usable.
    pub fn build_for(self, server: ServerUrl, token: &str) -> Result<Client, BuildError> {
        let token = token.trim();
        let printable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut authorization = header.ok().filter(|_| printable).ok_or(BuildError::Token)?;
        authorization.set_sensitive(true);
        let user_agent =
            HeaderValue::try_from(self.user_agent).map_err(|_| BuildError::UserAgent)?;
        let server = Arc::new(server);
        let connector = Connector::new(Arc::clone(&server), self.connect_timeout);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector.clone());
        let answer_timeout = self.answer_timeout;
        let inner = Inner {
            server,
            authorization,
            user_agent,
            connector,
            pool,
            answer_timeout,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }
}

/// How long to wait before a sprite that starts is asked again; `None` for every other refusal.
pub(crate) fn starting_pause(refusal: &ApiError) -> Option<Duration> {
    let asked = refusal.retry_after.unwrap_or(Duration::from_secs(1));
    (refusal.code == "sprite_starting").then_some(asked.min(RETRY_PAUSE_LIMIT))
}

/// One request, ready to be sent, and sent again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn new(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("our bodies have text keys and finite numbers");
        self.body = Bytes::from(text);
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// Method and path, without what was in the query: that may be long or private.
    pub(crate) fn summary(&self) -> String {
        let path = self.target.as_str().split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

impl Client {
    /// A client of the server at `server` (such as `http://127.0.0.1:7774`) that shows it `token`.
    ///
    /// # Errors
    /// When the address or the token is not usable. Nothing is sent yet.
    pub fn new(server: &str, token: &str) -> Result<Self, BuildError> {
        ClientBuilder::default().build(server, token)
    }

    /// A client with other settings than the usual ones.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The server that this client talks to.
    #[must_use]
    pub fn server(&self) -> &ServerUrl {
        &self.inner.server
    }

    /// A handle on the sprite called `name`. Nothing is sent: the sprite need not exist.
    #[must_use]
    pub fn sprite(&self, name: impl Into<String>) -> Sprite {
        Sprite::new(self.clone(), name.into())
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.inner.connector
    }

    /// How long the server may take to begin an answer.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.inner.answer_timeout
    }

    /// The headers that every request has, `Host` among them.
    pub(crate) fn standing_headers(&self) -> Result<HeaderMap, Error> {
        let host = HeaderValue::try_from(self.inner.server.authority()).map_err(|source| {
            Error::Unwritable {
                reason: source.to_string(),
            }
        })?;
        Ok(HeaderMap::from_iter([
            (HOST, host),
            (AUTHORIZATION, self.inner.authorization.clone()),
            (USER_AGENT, self.inner.user_agent.clone()),
        ]))
    }

    /// Sends a call and returns the answer whatever its status, once the server has begun it.
    ///
    /// "The sprite is starting" (503 `sprite_starting`, by which a server says that it has done nothing yet) is
    /// waited out for a minute.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; what the server does then is up to it.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let give_up = Instant::now() + STARTING_LIMIT;
        loop {
            let response = self.send_once(call).await?;
            if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                return Ok(response);
            }
            let refusal = self.refusal(response, call).await?;
            let pause = match starting_pause(&refusal) {
                Some(pause) if Instant::now() + pause <= give_up => pause,
                Some(_) | None => return Err(refusal.into()),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a call and returns the answer, whatever it is.
    pub(crate) async fn send_once(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let body = Full::new(call.body.clone()).map_err(|never| match never {});
        let request = self.request(call, body.boxed_unsync())?;
        let limit = self.inner.answer_timeout;
        match tokio::time::timeout(limit, self.inner.pool.request(request)).await {
            Ok(answer) => answer.map_err(|source| self.exchange_error(source)),
            Err(_) => Err(Error::TimedOut {
                what: "the server's answer",
                after: limit,
            }),
        }
    }

    /// Sends a call with a body that takes its time, and reads the JSON of its answer. The server's time begins when
    /// the body has ended, which the end of `all_read` says.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        call: &Call,
        body: Upload,
        all_read: oneshot::Receiver<()>,
    ) -> Result<T, Error> {
        let request = self.request(call, body)?;
        let limit = self.inner.answer_timeout;
        let late = async {
            // Nothing is ever sent over it.
            let _ = all_read.await;
            tokio::time::sleep(limit).await;
        };
        let response = tokio::select! {
            answer = self.inner.pool.request(request) => {
                answer.map_err(|source| self.exchange_error(source))?
            }
            () = late => {
                return Err(Error::TimedOut {
                    what: "the server's answer",
                    after: limit,
                });
            }
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, call).await?.into());
        }
        let body = body::whole(response.into_body(), limit).await?;
        serde_json::from_slice(&body)
            .map_err(|source| Error::malformed(format!("{}: {source}", call.summary())))
    }

    fn request(&self, call: &Call, body: Upload) -> Result<Request<Upload>, Error> {
        let server = &self.inner.server;
        let target = call.target.as_str();
        if target.len() > TARGET_LIMIT {
            return Err(Error::Unwritable {
                reason: format!(
                    "its path and query have {} bytes, at most {TARGET_LIMIT} can be sent",
                    target.len()
                ),
            });
        }
        let scheme = if server.is_tls() { "https" } else { "http" };
        let uri = format!("{scheme}://{}{}{target}", server.authority(), server.path());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .body(body)
            .map_err(|source| Error::Unwritable {
                reason: source.to_string(),
            })?;
        *request.headers_mut() = self.standing_headers()?;
        request.headers_mut().extend(call.headers.clone());
        Ok(request)
    }

    /// Tells "could not connect" from "broke while talking": after the first nothing has been sent.
    fn exchange_error(&self, error: legacy::Error) -> Error {
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            if let Some(ours) = inner.downcast_ref::<Error>() {
                return ours.clone();
            }
            source = inner.source();
        }
        Error::Exchange {
            server: (*self.inner.server).clone(),
            source: Arc::new(error),
        }
    }

    /// Sends a call and returns the answer if its status is a success.
    pub(crate) async fn accepted(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let response = self.send(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, call).await?.into())
    }

    /// Sends a call and reads the JSON body of its answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let response = self.accepted(call).await?;
        let body = body::whole(response.into_body(), self.inner.answer_timeout).await?;
        serde_json::from_slice(&body)
            .map_err(|source| Error::malformed(format!("{}: {source}", call.summary())))
    }

    /// Sends a call whose answer has no body that matters.
    pub(crate) async fn done(&self, call: &Call) -> Result<(), Error> {
        let response = self.accepted(call).await?;
        // Read to its end, so that the connection can be used again.
        body::whole(response.into_body(), self.inner.answer_timeout)
            .await
            .map(drop)
    }

    /// Reads an answer that says no.
    pub(crate) async fn refusal(
        &self,
        response: Response<Incoming>,
        call: &Call,
    ) -> Result<ApiError, Error> {
        let (head, incoming) = response.into_parts();
        // The status alone says no: a body that is missing or too large only costs the explanation.
        let body = body::whole(incoming, self.inner.answer_timeout)
            .await
            .unwrap_or_default();
        Ok(ApiError::read(
            head.status,
            &head.headers,
            &body,
            call.summary(),
        ))
    }
}
