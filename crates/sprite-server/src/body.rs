//! Bodies of requests.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sprite_api::ErrorKind;
use tokio::time::timeout;

use crate::problem::{Answer, Problem};

/// Longest JSON body in bytes.
pub(crate) const MAX_JSON: usize = 1 << 20;

/// How long a body may take: that of a slow line, not of a client that holds a connection open.
const WITHIN: Duration = Duration::from_secs(30);

/// A whole body of at most [`MAX_JSON`] bytes.
///
/// # Errors
/// It is larger, or it does not come in time, or the client broke off.
pub(crate) async fn whole(body: Body) -> Answer<Bytes> {
    let collected = timeout(WITHIN, Limited::new(body, MAX_JSON).collect())
        .await
        .map_err(|_| Problem::new(ErrorKind::Invalid, "body did not come in time"))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if too_long(error.as_ref()) => Err(Problem::new(
            ErrorKind::TooLarge,
            "body is larger than is allowed here",
        )),
        Err(error) => Err(Problem::new(
            ErrorKind::Invalid,
            format!("read the body: {error}"),
        )),
    }
}

/// Whether this limit was met, or a lower one that the way here has.
fn too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause.is::<LengthLimitError>() {
            return true;
        }
        error = cause.source();
    }
    false
}

/// The JSON of a body, whatever its `Content-Type` says: a well-known client forgets it.
///
/// Source: behaviour reference §1.1.
///
/// # Errors
/// It is not JSON of that shape.
pub(crate) async fn json<T: DeserializeOwned>(body: Body) -> Answer<T> {
    parse(&whole(body).await?)
}

/// Like [`json`], but an empty body is the default.
///
/// # Errors
/// There is a body, and it is not JSON of that shape.
pub(crate) async fn optional_json<T: DeserializeOwned + Default>(body: Body) -> Answer<T> {
    let bytes = whole(body).await?;
    if bytes.is_empty() {
        Ok(T::default())
    } else {
        parse(&bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    // serde would read a list into a struct as well.
    if bytes
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_none_or(|byte| *byte != b'{')
    {
        return Err(Problem::new(
            ErrorKind::Invalid,
            "body is not a JSON object",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(
            ErrorKind::Invalid,
            format!("body is not the expected JSON: {error}"),
        )
    })
}
