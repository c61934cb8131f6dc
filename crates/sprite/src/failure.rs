//! How a command fails: one message, why, what to do about it, and an exit code.

use std::error::Error as StdError;
use std::fmt;

use sprite_client::{ApiError, Error, ExecError, ServerUrl};

/// Anything that went wrong.
const GENERAL: u8 = 1;
/// The command line does not make sense.
const USAGE: u8 = 2;

/// Why a command failed, in the words that are shown.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure that is not the fault of the command line.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: GENERAL,
        }
    }

    /// A command line that does not make sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            ..Self::new(message)
        }
    }

    /// A failure with the reasons below it, outermost first.
    pub(crate) fn caused(message: impl Into<String>, error: &(dyn StdError + 'static)) -> Self {
        let mut text = message.into();
        let mut cause = Some(error);
        while let Some(error) = cause {
            let reason = error.to_string();
            // Layers that only repeat what is below them are not worth a colon.
            if !text.ends_with(&reason) {
                text.push_str(": ");
                text.push_str(&reason);
            }
            cause = error.source();
        }
        Self::new(text)
    }

    /// Adds what can be done about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What to do about an answer that says no. The server's own message, shown above it, often says it already.
fn api_hint(refusal: &ApiError, server: &ServerUrl) -> Option<String> {
    match (refusal.status, refusal.code.as_str()) {
        (401, _) => Some(format!(
            "log in: sprited token create --org personal | sprite auth setup --url {server} --token -"
        )),
        (404, _) if refusal.request.contains("/exec/") => {
            Some("see what runs: sprite sessions list".to_owned())
        }
        (404, _) if refusal.request.contains("/checkpoints/") => {
            Some("see which there are: sprite checkpoint list --include-auto".to_owned())
        }
        (404, "not_found") => Some("see what there is: sprite list".to_owned()),
        (409, "name_taken") => {
            Some("choose another name, or use that sprite: sprite use NAME".to_owned())
        }
        (429, _) => refusal
            .retry_after
            .map(|pause| format!("the server asks to wait {} s", pause.as_secs())),
        (501, _) => Some("this server or its driver cannot do that".to_owned()),
        _ => None,
    }
}

/// Puts an error of the SDK into words, for a client of `server`.
pub(crate) fn api(error: &Error, server: &ServerUrl) -> Failure {
    match error {
        Error::Refused(refusal) => {
            let failure = Failure::new(refusal.to_string());
            match api_hint(refusal, server) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        Error::Failed { message } => Failure::new(message.clone()),
        Error::Connect { source, .. } => {
            let failure = Failure::caused(format!("cannot connect to {server}"), source.as_ref());
            if server.is_loopback() {
                failure.hint("start the server: sprited serve (another one: SPRITE_URL=…)")
            } else {
                failure.hint("look at the address: SPRITE_URL=… or sprite auth setup --url …")
            }
        }
        Error::Exchange { source, .. } => {
            Failure::caused(format!("the connection to {server} broke"), source.as_ref())
                .hint("whether the request was carried out is not known; look before trying again")
        }
        other => Failure::caused("the call failed", other),
    }
}

/// Puts an error of a running command into words.
pub(crate) fn exec(error: &ExecError, server: &ServerUrl, sprite: &str) -> Failure {
    match error {
        ExecError::Start(start) => api(start, server),
        ExecError::Lost { session: Some(session), .. } => Failure::new(error.to_string()).hint(format!(
            "the exit status is not known; the session may run on: sprite attach -s {sprite} {session}"
        )),
        other => Failure::caused("the command's end is not known", other),
    }
}
