//! A program in a sprite, spoken to in HTTP.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sprite_host::{Awake, Reusable};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::headers;
use crate::connection::Connection;
use crate::problem::{Answer, Problem};

/// The longest head of an answer in bytes, with all that has arrived behind it.
const LONGEST_HEAD: usize = 256 << 10;

/// A connection to a program.
pub(super) struct Program {
    sender: SendRequest<Body>,
    /// Where it listens.
    pub(super) port: u16,
    memory: Reusable,
    /// Dropped, the connection ends, whatever of a request has not been sent.
    _connection: DropGuard,
}

impl Program {
    /// Begins to speak HTTP.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn speak(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        port: u16,
        memory: Reusable,
        connection: &Connection,
    ) -> Answer<Self> {
        let spoken = http1::Builder::new()
            .max_buf_size(LONGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, driver) = spoken.map_err(|error| Problem::machine_lost(error.to_string()))?;
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        connection.tasks.spawn(async move {
            // Whoever waits for an answer is told how it ended.
            tokio::select! {
                _ = driver.with_upgrades() => {}
                () = over.cancelled() => {}
            }
        });
        Ok(Self {
            sender,
            port,
            memory,
            _connection: guard,
        })
    }

    /// Brings it a request.
    ///
    /// # Errors
    /// The connection broke, or what came is no answer.
    pub(super) async fn ask(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(request).await
    }

    /// Whether nothing is under way on it, in neither direction.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Returns when nothing is under way on it; `false` if it is over.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Nobody uses it for now.
    pub(super) fn rest(&self) {
        self.memory.rest();
    }

    /// Whether it can be used by whoever holds the sprite, which counts as the sprite's use from now on.
    pub(super) fn resume(&self, awake: &Awake) -> bool {
        self.is_ready() && self.memory.resume(awake)
    }

    /// The memory that it is in.
    pub(super) fn memory(&self) -> &Reusable {
        &self.memory
    }
}

/// Whether a request may be sent on a connection that was used before, and be sent again if that turns out to have
/// ended: it changes nothing, has no body, and asks for nothing but an answer.
pub(super) fn is_repeatable(request: &Request<Body>) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let headers = request.headers();
    safe && request.body().is_end_stream()
        && headers::upgrade(headers).is_none()
        && !logs_the_connection_in(headers)
}

/// The same request once more.
pub(super) fn again(request: &Request<Body>) -> Request<Body> {
    let mut again = Request::new(Body::empty());
    request.method().clone_into(again.method_mut());
    request.uri().clone_into(again.uri_mut());
    request.headers().clone_into(again.headers_mut());
    again
}

/// Whether a login is one of the whole connection, which nobody else may then use. Source: RFC 4559 §6.
fn logs_the_connection_in(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        let scheme = scheme.unwrap_or_default();
        [&b"ntlm"[..], b"negotiate"]
            .iter()
            .any(|bound| scheme.eq_ignore_ascii_case(bound))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
        let mut request = Request::builder().method(method).uri("/a?b");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            "" => Body::empty(),
            some => Body::from(some),
        };
        request.body(body).expect("a request")
    }

    #[test]
    fn only_what_changes_nothing_is_sent_twice() {
        for (method, headers, repeatable) in [
            ("GET", &[][..], true),
            ("HEAD", &[("authorization", "Bearer x")], true),
            ("OPTIONS", &[], true),
            ("POST", &[], false),
            ("PUT", &[], false),
            ("DELETE", &[], false),
            ("MADEUP", &[], false),
            ("GET", &[("authorization", "NTLM TlRMTVNTUAAB")], false),
            ("GET", &[("authorization", "negotiate x")], false),
            (
                "GET",
                &[("connection", "upgrade"), ("upgrade", "websocket")],
                false,
            ),
        ] {
            let request = request(method, headers, "");
            assert_eq!(is_repeatable(&request), repeatable, "{method} {headers:?}");
            let again = again(&request);
            assert_eq!(
                (again.method(), again.uri(), again.headers()),
                (request.method(), request.uri(), request.headers())
            );
        }
        assert!(!is_repeatable(&request("GET", &[], "body")));
    }
}
