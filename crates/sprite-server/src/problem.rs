//! Everything that is not a success: one type from the failure to the answer.

use std::error::Error;
use std::fmt::Write as _;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sprite_agent_api::link::LinkError;
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_api::query::QueryError;
use sprite_api::{ErrorBody, ErrorKind};
use sprite_host::{
    AuthError, CatalogError, CheckError, CreateError, DestroyError, ListError, LookupError,
    OrganisationError, PolicyError, RestartError, SleepError, TokenError, UpdateError, UsageError,
    WakeError,
};
use sprite_types::{DriverKind, SpriteId, SpriteName};

use crate::answer;

/// When a client should ask again that was told to, in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: ErrorKind,
    body: Box<ErrorBody>,
    header: Option<(HeaderName, HeaderValue)>,
}

pub(crate) type Answer<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            body: Box::new(ErrorBody::new(kind, message)),
            header: None,
        }
    }

    /// Fields of a body or query that are wrong; at least one rule.
    pub(crate) fn fields(errors: Vec<String>) -> Self {
        let body = Box::new(ErrorBody::invalid_fields(errors));
        Self {
            kind: ErrorKind::Invalid,
            body,
            header: None,
        }
    }

    /// One field that is wrong.
    pub(crate) fn field(error: impl Into<String>) -> Self {
        Self::fields(vec![error.into()])
    }

    /// A sprite that may not use the API of its organisation.
    pub(crate) fn no_access() -> Self {
        Self::new(
            ErrorKind::Forbidden,
            "this sprite may not use the API of its organization",
        )
        .with_hint("from outside: sprite config update --api-access on")
    }

    /// What a sprite may not ask for, though it may make sprites.
    pub(crate) fn not_from_inside(what: &str) -> Self {
        let message = format!("from inside a sprite, {what} cannot be changed");
        Self::new(ErrorKind::Forbidden, message).with_hint("do it with a token of the organization")
    }

    pub(crate) fn no_sprite() -> Self {
        Self::new(ErrorKind::NotFound, "sprite not found")
    }

    /// Source: behaviour reference §1.4.2.
    pub(crate) fn no_session(id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        Self::new(ErrorKind::NotFound, format!("session not found: {id}"))
    }

    /// More than the walls of a driver give.
    fn not_given(message: String, driver: DriverKind) -> Self {
        let mut problem = Self::new(ErrorKind::Unsupported, message);
        problem.body.operation = Some("policy.privileges".to_owned());
        problem.body.driver = Some(driver.to_string());
        problem
    }

    /// A failure that is none of the caller's business: logged in full, told in a word.
    pub(crate) fn internal(error: &(dyn Error + 'static)) -> Self {
        if overloaded(error) {
            return Self::new(ErrorKind::Unavailable, "too many requests at once")
                .with_hint("try again in a moment");
        }
        tracing::error!(error = chain(error), "request failed");
        Self::new(ErrorKind::Internal, error.to_string()).with_hint("the server's log says more")
    }

    /// What cannot be done to a file: `error` is for people there, and `code` for programs.
    /// Source: behaviour reference §1.2.
    pub(crate) fn of_file(kind: ErrorKind, code: &str, path: String, message: String) -> Self {
        let mut problem = Self::new(kind, message.clone());
        problem.body.error = message;
        problem.body.code = Some(code.to_owned());
        problem.body.path = Some(path);
        problem
    }

    /// The machine did not answer as it should.
    pub(crate) fn machine_lost(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::MachineLost, message)
    }

    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.body.hint = Some(hint.to_owned());
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// The wire code of its kind.
    pub(crate) fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// How large the thing is of which a part was asked for. Source: RFC 9110 §15.5.17.
    pub(crate) fn with_range(mut self, size: u64) -> Self {
        let value = HeaderValue::try_from(format!("bytes */{size}")).expect("it is printable");
        self.header = Some((header::CONTENT_RANGE, value));
        self
    }

    /// The text for people.
    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }

    /// What the agent would not do. `session` is the one that was asked for, if any.
    pub(crate) fn refused(failure: Failure, session: Option<&str>) -> Self {
        let kind = match (failure.kind, session) {
            (FailureKind::NoSession, Some(id)) => return Self::no_session(id),
            (FailureKind::NoSession, None) => ErrorKind::NotFound,
            (FailureKind::Invalid | FailureKind::Dir, _) => ErrorKind::Invalid,
            (FailureKind::SessionEnded, _) => ErrorKind::Gone,
            (FailureKind::NotReady | FailureKind::Limit, _) => ErrorKind::Unavailable,
            (FailureKind::System, _) => ErrorKind::Internal,
            (FailureKind::Unknown, _) => ErrorKind::MachineLost,
        };
        Self::new(kind, failure.message)
    }

    /// Source: behaviour reference §1.2 (waking).
    pub(crate) fn waking(error: WakeError, sprite: SpriteId, name: &SpriteName) -> Self {
        match error {
            WakeError::NotFound => Self::no_sprite(),
            WakeError::Starting { .. } => {
                let message = format!("Sprite '{name}' is starting. Please retry your request.");
                let mut problem = Self::new(ErrorKind::SpriteStarting, message);
                problem.body.sprite_id = Some(sprite.to_string());
                problem
            }
            WakeError::Busy | WakeError::Closing => {
                Self::new(ErrorKind::Unavailable, error.to_string())
            }
            // The disk is as it was, and the next request tries again: an outage of one sprite.
            WakeError::Failed { .. } => Self::new(ErrorKind::Unavailable, error.to_string()),
            WakeError::Catalog(_) => Self::internal(&error),
        }
    }
}

/// An error with all its causes in one line.
/// Whether that is for want of nothing but time.
fn overloaded(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(CatalogError::Busy { .. }) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a text cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status =
            StatusCode::from_u16(self.kind.status()).expect("the table holds HTTP statuses");
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.body.retry_after_seconds = Some(RETRY_AFTER_SECONDS);
        }
        let mut response = answer::json(status, &self.body);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Malformed | AuthError::Unknown => {
                Self::new(ErrorKind::Unauthorized, error.to_string())
            }
            AuthError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let message = error.to_string();
        match error {
            PolicyError::NotFound => Self::no_sprite(),
            PolicyError::Limit(_) => Self::field(message),
            PolicyError::Privileged { driver } => Self::not_given(message, driver)
                .with_hint("create the sprite on the driver microvm"),
            PolicyError::Device { driver, there, .. } => Self::not_given(message, driver)
                .with_hint(&format!("devices that are there: {}", there.join(", "))),
            PolicyError::NotInForce { ended: true, .. } => Self::machine_lost(message),
            PolicyError::NotInForce { ended: false, .. } | PolicyError::Catalog(_) => {
                Self::internal(&error)
            }
            PolicyError::Busy | PolicyError::Closing => Self::new(ErrorKind::Unavailable, message),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match &error {
            CreateError::NameTaken { name } => Self::new(
                ErrorKind::NameTaken,
                format!("Sprite name '{name}' is already taken"),
            )
            .with_hint("use the sprite that exists, or choose another name"),
            CreateError::Resources(cause) => Self::field(format!("config: {cause}")),
            CreateError::DiskTooSmall { smallest_gb, .. } => {
                Self::field(format!("config: {error}")).with_hint(&format!(
                    "ask for {smallest_gb} GB or more; a disk takes only the space that is written"
                ))
            }
            CreateError::Labels { .. } => Self::field(error.to_string()),
            CreateError::Environment(cause) => Self::field(cause.to_string()),
            CreateError::TooMany { .. } | CreateError::MadeTooMany { .. } => {
                Self::new(ErrorKind::LimitExceeded, error.to_string())
            }
            CreateError::MayNotMake(_) => Self::no_access(),
            CreateError::ApiAccess => Self::not_from_inside("API access"),
            CreateError::NoSource => Self::new(ErrorKind::NotFound, "from: sprite not found"),
            CreateError::NoCheckpoint { id } => Self::new(
                ErrorKind::NotFound,
                format!("from: checkpoint not found: {id}"),
            )
            .with_hint("sprite checkpoint list --include-auto shows those that there are"),
            CreateError::ForkSize { .. } => Self::field(format!("config: {error}")),
            CreateError::ForkDriver { .. } => Self::field(format!("from: {error}")),
            CreateError::WriteOut(_) => {
                tracing::error!(error = chain(&error), "fork a sprite");
                Self::new(ErrorKind::Unavailable, error.to_string()).with_hint("try again")
            }
            CreateError::LargerThanMaker { .. } => Self::field(format!("config: {error}")),
            CreateError::NoSpace(_) => Self::new(ErrorKind::Unavailable, error.to_string())
                .with_hint("the server needs more disk space"),
            CreateError::Destroyed => Self::new(ErrorKind::Conflict, error.to_string()),
            CreateError::Closing => Self::new(ErrorKind::Unavailable, error.to_string()),
            CreateError::Organisation(_)
            | CreateError::Disk(_)
            | CreateError::Step { .. }
            | CreateError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotFound => Self::no_sprite(),
            LookupError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<UpdateError> for Problem {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::NotFound => Self::no_sprite(),
            UpdateError::Labels { .. } => Self::field(error.to_string()),
            UpdateError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<DestroyError> for Problem {
    fn from(error: DestroyError) -> Self {
        match error {
            DestroyError::NotFound => Self::no_sprite(),
            DestroyError::Busy | DestroyError::Closing => {
                Self::new(ErrorKind::Unavailable, error.to_string())
            }
            DestroyError::Step { .. } | DestroyError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<RestartError> for Problem {
    fn from(error: RestartError) -> Self {
        match error {
            RestartError::NotFound => Self::no_sprite(),
            RestartError::Busy | RestartError::Closing | RestartError::Failed { .. } => {
                Self::new(ErrorKind::Unavailable, error.to_string())
            }
            RestartError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<SleepError> for Problem {
    fn from(error: SleepError) -> Self {
        match error {
            SleepError::NotFound => Self::no_sprite(),
            SleepError::Held => Self::new(ErrorKind::Conflict, error.to_string())
                .with_hint("end its tasks and the requests that are under way, then ask again"),
            SleepError::Busy | SleepError::Closing | SleepError::Failed { .. } => {
                Self::new(ErrorKind::Unavailable, error.to_string())
            }
            SleepError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<CheckError> for Problem {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::NotFound => Self::no_sprite(),
            CheckError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::NotFound => Self::no_sprite(),
            UsageError::Catalog(_) | UsageError::Disk(_) => Self::internal(&error),
        }
    }
}

impl From<OrganisationError> for Problem {
    fn from(error: OrganisationError) -> Self {
        match error {
            OrganisationError::NotFound(_) => {
                Self::new(ErrorKind::NotFound, "organization not found")
            }
            OrganisationError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Description { .. } => Self::field(error.to_string()),
            TokenError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::field(error.to_string())
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        Self::machine_lost(error.to_string())
    }
}
