//! Calls that this client has no words for.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Response};
use std::sync::Arc;

use crate::client::{Call, Client};
use crate::error::Error;
use crate::url::Target;

/// A request that is made of a method and a path; [`send`](Self::send) sends it.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `send`"]
pub struct RawRequest {
    client: Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// An answer to a [`RawRequest`], whatever its status.
#[derive(Debug)]
pub struct RawResponse {
    response: Response<Incoming>,
}

impl Client {
    /// A request to `path` (with its query) of this server, with the token added.
    pub fn raw(&self, method: impl Into<String>, path: impl Into<String>) -> RawRequest {
        RawRequest {
            client: self.clone(),
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

impl RawRequest {
    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request.
    ///
    /// # Errors
    /// When it cannot be written or no answer comes. An answer that says no is an answer.
    pub async fn send(self) -> Result<RawResponse, Error> {
        let unwritable = |reason: String| Error::Unwritable { reason };
        // Anything else could be read as part of the host.
        if !self.path.starts_with('/') {
            return Err(unwritable(format!(
                "the path {:?} does not begin with '/'",
                self.path
            )));
        }
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| unwritable(format!("{:?} is not a method", self.method)))?;
        let mut call = Call::new(method, Target::new(&self.path));
        call.body = self.body;
        call.headers = headers(&self.headers).map_err(unwritable)?;
        let response = self.client.send_once(&call).await?;
        Ok(RawResponse { response })
    }
}

fn headers(wanted: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is not a header"))?;
        if [HOST, AUTHORIZATION, CONNECTION, CONTENT_LENGTH].contains(&name) {
            return Err(format!("the header {name} is set by the client"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            format!("the value of the header {name} has characters that it cannot have")
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

impl RawResponse {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The headers in order, values that are not text left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.response.headers().iter();
        all.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the body broke off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(Error::Interrupted {
                        source: Some(Arc::new(source)),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
