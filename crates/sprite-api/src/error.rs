//! What can go wrong, as clients see it: one table from kinds to HTTP status, wire code and what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every kind of failure that the API tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request does not make sense; it is wrong however often it is sent.
    Invalid,
    /// The request came over plain HTTP where a WebSocket upgrade is needed.
    UpgradeRequired,
    /// No token, or none that is known.
    Unauthorized,
    /// Whoever asks may not do that there.
    Forbidden,
    /// There is no such thing, or it is not the caller's.
    NotFound,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// Another sprite of the organisation has that name.
    NameTaken,
    /// The sprite is in a state in which this cannot be done, and waiting does not help.
    Conflict,
    /// It was there and has ended.
    Gone,
    /// The body is larger than this server takes.
    TooLarge,
    /// The part of the file that is asked for does not exist.
    NoSuchRange,
    /// The request line is larger than this server takes.
    UriTooLong,
    /// The organisation has reached a limit.
    LimitExceeded,
    /// This server or its driver does not do that.
    Unsupported,
    /// The sprite did not wake in time.
    SpriteStarting,
    /// The server is stopping, or is out of something.
    Unavailable,
    /// The disk is full.
    NoSpace,
    /// Nothing in the sprite takes requests for its URL.
    BadGateway,
    /// Nothing in the sprite takes connections at a port.
    ConnectionRefused,
    /// The machine did not answer in time, or ended in the middle.
    MachineLost,
    /// A defect or a broken host.
    Internal,
}

/// A row of the table.
struct Row {
    status: u16,
    code: &'static str,
    retryable: bool,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Invalid,
        Self::UpgradeRequired,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NameTaken,
        Self::Conflict,
        Self::Gone,
        Self::TooLarge,
        Self::UriTooLong,
        Self::NoSuchRange,
        Self::LimitExceeded,
        Self::Unsupported,
        Self::SpriteStarting,
        Self::Unavailable,
        Self::NoSpace,
        Self::BadGateway,
        Self::ConnectionRefused,
        Self::MachineLost,
        Self::Internal,
    ];

    /// The one table. Source of the codes: behaviour reference §1.2.
    const fn row(self) -> Row {
        let (status, code, retryable) = match self {
            Self::Invalid => (400, "invalid_request", false),
            Self::UpgradeRequired => (426, "upgrade_required", false),
            Self::Unauthorized => (401, "unauthorized", false),
            Self::Forbidden => (403, "forbidden", false),
            Self::NotFound => (404, "not_found", false),
            Self::MethodNotAllowed => (405, "method_not_allowed", false),
            Self::NameTaken => (409, "name_taken", false),
            Self::Conflict => (409, "conflict", false),
            Self::Gone => (410, "gone", false),
            Self::TooLarge => (413, "too_large", false),
            Self::UriTooLong => (414, "uri_too_long", false),
            Self::NoSuchRange => (416, "range_not_satisfiable", false),
            Self::LimitExceeded => (429, "concurrent_sprite_limit_exceeded", true),
            Self::Unsupported => (501, "unsupported", false),
            Self::SpriteStarting => (503, "sprite_starting", true),
            Self::Unavailable => (503, "unavailable", true),
            Self::NoSpace => (507, "no_space", false),
            Self::BadGateway => (502, "bad_gateway", true),
            Self::ConnectionRefused => (502, "connection_refused", true),
            Self::MachineLost => (502, "machine_lost", true),
            Self::Internal => (500, "internal", false),
        };
        Row {
            status,
            code,
            retryable,
        }
    }

    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// What the body's `error` says.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// The kind with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A code (`not_found`, `name_taken`, …); for a field that is wrong, the rule that it breaks.
    pub error: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every rule that the body breaks, where it is its fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What cannot be done, with `unsupported`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The driver that cannot do it, with `unsupported`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The name of the kernel's error, of an operation on files: `ENOENT`, `EACCES`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The file that the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The sprite that is starting, with `sprite_starting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sprite_id: Option<String>,
    /// When to ask again, in seconds; the header `Retry-After` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl ErrorBody {
    /// A body that says no more than what went wrong.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            error: kind.code().to_owned(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// A body about fields that are wrong: `error` is the first broken rule itself.
    ///
    /// Source: behaviour reference §1.2 (`{"error":"name is required"}`, `{"errors":[…]}`).
    #[must_use]
    pub fn invalid_fields(errors: Vec<String>) -> Self {
        let error = errors
            .first()
            .cloned()
            .unwrap_or_else(|| ErrorKind::Invalid.code().to_owned());
        Self {
            message: errors.join("; "),
            error,
            errors,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
            assert!((400..600).contains(&kind.status()), "{kind:?}");
        }
        assert_eq!(ErrorKind::from_code("no_such_code"), None);
    }

    /// Behaviour reference §1.2: the codes that clients know.
    #[test]
    fn known_codes_have_their_statuses() {
        for (code, status) in [
            ("not_found", 404),
            ("name_taken", 409),
            ("sprite_starting", 503),
            ("concurrent_sprite_limit_exceeded", 429),
        ] {
            assert_eq!(
                ErrorKind::from_code(code).map(ErrorKind::status),
                Some(status),
                "{code}"
            );
        }
    }
}
