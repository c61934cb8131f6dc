//! What a text message between operations asks for, in the two dialects that clients speak.
//! Source: behaviour reference §1.5.
//!
//! | dialect | start | answers |
//! |---|---|---|
//! | [`Envelope::Prefixed`] | `control:{"type":"op.start","op":…,"args":…}` | `control:` and an envelope |
//! | [`Envelope::Bare`] | `{"type":"start","operation":…,"params":…}`, `{"type":"op.start",…}` | the bare envelope |
//!
//! An exec answers in envelopes with their prefix whoever asked for it.

use sprite_api::control::{ClientEnvelope, Envelope, PREFIX};
use sprite_api::proxy::ProxyHello;
use sprite_api::query::Query;

use super::files::FileOperation;

/// What a message asks for.
pub(super) enum Asked {
    Start(Started),
    Nothing,
    /// It asks for something that cannot be done; why, and how that is told.
    Wrong(String, Envelope),
}

/// An operation to run, and how its end is told.
pub(super) struct Started {
    pub(super) operation: Operation,
    pub(super) envelope: Envelope,
}

/// What the socket can do.
pub(super) enum Operation {
    Exec(Query),
    Proxy(ProxyHello),
    Files(FileOperation, Query),
}

/// Reads a message.
pub(super) fn read(text: &str) -> Asked {
    let (json, envelope) = match text.strip_prefix(PREFIX) {
        Some(json) => (json, Envelope::Prefixed),
        None => (text, Envelope::Bare),
    };
    match (ClientEnvelope::parse(json), envelope) {
        (Some(ClientEnvelope::Start { op, args }), _) => start(&op, args, envelope),
        (Some(ClientEnvelope::Release), _) => Asked::Nothing,
        (Some(ClientEnvelope::Unknown { kind }), Envelope::Prefixed) => {
            Asked::Wrong(format!("envelope of unknown type {kind:?}"), envelope)
        }
        (None, Envelope::Prefixed) => Asked::Wrong("envelope cannot be read".to_owned(), envelope),
        // A late resize or signal.
        (Some(ClientEnvelope::Unknown { .. }) | None, Envelope::Bare) => Asked::Nothing,
    }
}

fn start(op: &str, args: Query, envelope: Envelope) -> Asked {
    let operation = match op {
        "exec" => Ok(Operation::Exec(args)),
        "proxy" => proxy(&args).map(Operation::Proxy),
        other => match FileOperation::of(other) {
            Some(operation) => Ok(Operation::Files(operation, args)),
            None => {
                let other: String = other.chars().take(80).collect();
                Err(format!("unsupported operation {other:?}"))
            }
        },
    };
    match operation {
        Ok(operation) => Asked::Start(Started {
            operation,
            envelope,
        }),
        Err(error) => Asked::Wrong(error, envelope),
    }
}

fn proxy(args: &Query) -> Result<ProxyHello, String> {
    let hello = crate::proxy::asked(args).map_err(|problem| problem.message().to_owned())?;
    hello.ok_or_else(|| "port must be 1 to 65535".to_owned())
}
