//! `sprite-env` and `sprite-browser`: this program as a command inside the environment.
//!
//! It has no right that its caller does not have: it is an ordinary process that speaks HTTP on `/.sprite/api.sock`.
//! It is a part of this program because this one is linked statically and there already, so it runs in an image of
//! any kind. Answers go to stdout as they come, everything else to stderr.
//!
//! Source: behaviour reference §4.5.

mod arguments;
mod http;

use std::io::Write;
use std::process::ExitCode;

use serde::Deserialize;

use arguments::{Parsed, Shown};
use http::{Method, Request};

/// The name of the command.
pub(crate) const NAME: &str = "sprite-env";
/// The name of the command that opens URLs.
pub(crate) const BROWSER: &str = "sprite-browser";

/// Exit status for arguments that make no sense.
const USAGE: u8 = 2;

/// What the API says of a failure.
#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments::parse(&arguments) {
        Ok(Parsed::Help) => {
            print!("{}", arguments::HELP);
            ExitCode::SUCCESS
        }
        Ok(Parsed::Call { request, shown }) => perform(&request, shown),
        Err(usage) => {
            eprintln!("{NAME}: {usage}\nTry '{NAME} help'.");
            ExitCode::from(USAGE)
        }
    }
}

/// Asks the person who is attached to open a URL; without one the URL is printed, so that it can be copied.
pub(crate) fn browser() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url] = &arguments[..] else {
        eprintln!("usage: {BROWSER} URL");
        return ExitCode::from(USAGE);
    };
    let body = serde_json::json!({ "url": url }).to_string();
    let request = Request::new(Method::post(), "/v1/browser").with_json(body);
    let mut said = Vec::new();
    let failure = match http::call(&request, &mut said) {
        Ok(status) if status.success() => return ExitCode::SUCCESS,
        Ok(_) => explain(&said),
        Err(error) => error.to_string(),
    };
    eprintln!("{BROWSER}: {failure}\nOpen this URL:");
    println!("{url}");
    ExitCode::FAILURE
}

fn perform(request: &Request, shown: Shown) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let done = match shown {
        Shown::Raw => http::call(request, &mut stdout),
        Shown::Answer => {
            let mut answer = Answer {
                stdout: &mut stdout,
                refusal: Vec::new(),
            };
            let done = http::call_with(request, |status, bytes| answer.take(status, bytes));
            if let Ok(status) = &done
                && !status.success()
            {
                eprintln!("{NAME}: {}", explain(&answer.refusal));
            }
            done
        }
    };
    // The reader may have gone; then there is nobody to tell.
    let _ = stdout.flush();
    match done {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Most of a refusal that is kept to be explained.
const LONGEST_REFUSAL: usize = 64 << 10;

/// Success goes out as it comes; a refusal is kept, and explained.
struct Answer<'a, W> {
    stdout: &'a mut W,
    refusal: Vec<u8>,
}

impl<W: Write> Answer<'_, W> {
    fn take(&mut self, status: http::Status, bytes: &[u8]) -> std::io::Result<()> {
        if !status.success() {
            let room = LONGEST_REFUSAL.saturating_sub(self.refusal.len());
            self.refusal
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
            return Ok(());
        }
        self.stdout.write_all(bytes)?;
        self.stdout.flush()
    }
}

/// A refusal for people.
fn explain(body: &[u8]) -> String {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else {
        return String::from_utf8_lossy(body).trim().to_owned();
    };
    let what = if refusal.message.is_empty() {
        refusal.error
    } else {
        refusal.message
    };
    match refusal.hint {
        Some(hint) => format!("{what}\nhint: {hint}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_with_their_hint() {
        let body = br#"{"error":"not_found","message":"task not found","hint":"list them"}"#;
        assert_eq!(explain(body), "task not found\nhint: list them");
        assert_eq!(
            explain(br#"{"error":"name is required"}"#),
            "name is required"
        );
        assert_eq!(explain(b"plain\n"), "plain");
    }
}
