//! What an exec is asked with: the query of a request, or the arguments of a control operation.
//! Source: behaviour reference §1.4.1.

use std::time::Duration;

use sprite_agent_api::message::{AttachSpec, ExecSpec, TtySize};
use sprite_api::query::Query;
use sprite_api::unit;
use sprite_types::SessionId;

use crate::problem::{Answer, Problem};

/// What runs if nothing is named.
const DEFAULT_COMMAND: &str = "bash";
/// The size of a terminal whose client does not tell it.
const DEFAULT_SIZE: TtySize = TtySize { rows: 24, cols: 80 };
/// How long a command without a terminal runs on when its client is gone.
const DEFAULT_RUN_ON: Duration = Duration::from_secs(10);

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A new session.
    Start(ExecSpec),
    /// A session that exists, by the id that the client wrote.
    Attach(String, AttachSpec),
}

/// Reads what is wanted.
///
/// # Errors
/// Tells every parameter that is wrong.
pub(crate) fn wanted(query: &Query) -> Answer<Wanted> {
    match query.get("id").filter(|id| !id.is_empty()) {
        Some(id) => attach(id, query).map(|spec| Wanted::Attach(id.to_owned(), spec)),
        None => start(query).map(|spec| {
            Wanted::Start(ExecSpec {
                ports: true,
                ..spec
            })
        }),
    }
}

/// Reads which session is wanted, and from where: from the offset that is asked for in each stream; without any, from
/// what a terminal shows, or from the first byte that is kept.
///
/// `output_offset` and `stdout_offset` are the same. Source: behaviour reference §11.3, §12 (replay cursor).
///
/// # Errors
/// The id is the id of no session, or a number is none.
pub(crate) fn attach(id: &str, query: &Query) -> Answer<AttachSpec> {
    // What cannot be an id is the id of no session.
    let session: SessionId = id.parse().map_err(|_| Problem::no_session(id))?;
    let offset = |key: &str| match query.get(key).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Problem::field(format!("{key} is not a number of bytes"))),
    };
    let stdout = offset("stdout_offset")?.or(offset("output_offset")?);
    let stderr = offset("stderr_offset")?;
    Ok(AttachSpec {
        session,
        stdout_offset: stdout.unwrap_or_default(),
        stderr_offset: stderr.unwrap_or_default(),
        ports: true,
        screen: stdout.is_none() && stderr.is_none(),
        size: size(query)?,
    })
}

/// Whether the client opens URLs for programs in the sprite; if it says nothing, it does not.
///
/// # Errors
/// It says neither.
pub(crate) fn takes_urls(query: &Query) -> Answer<bool> {
    let mut errors = Vec::new();
    let takes = switch(query, "browser", &mut errors).unwrap_or(false);
    if errors.is_empty() {
        Ok(takes)
    } else {
        Err(Problem::fields(errors))
    }
}

/// The size of the client's terminal, if it tells it.
fn size(query: &Query) -> Answer<Option<TtySize>> {
    let mut errors = Vec::new();
    let rows = cells(query, "rows", 0, &mut errors);
    let cols = cells(query, "cols", 0, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    Ok((rows > 0 && cols > 0).then_some(TtySize { rows, cols }))
}

/// Reads what is to be started.
///
/// # Errors
/// Tells every parameter that is wrong.
pub(crate) fn start(query: &Query) -> Answer<ExecSpec> {
    let mut errors = Vec::new();
    let tty = switch(query, "tty", &mut errors).unwrap_or(false);
    let stdin = switch(query, "stdin", &mut errors).unwrap_or(tty);
    let detachable = switch(query, "detachable", &mut errors).unwrap_or(false);
    let size = TtySize {
        rows: cells(query, "rows", DEFAULT_SIZE.rows, &mut errors),
        cols: cells(query, "cols", DEFAULT_SIZE.cols, &mut errors),
    };
    let named = query.get("path").filter(|path| !path.is_empty());
    let mut argv: Vec<String> = query.all("cmd").map(str::to_owned).collect();
    if argv.is_empty() {
        argv.push(named.unwrap_or(DEFAULT_COMMAND).to_owned());
    }
    let path = named.unwrap_or(&argv[0]).to_owned();
    if path.is_empty() {
        errors.push("cmd is empty".to_owned());
    }
    let dir = query
        .get("dir")
        .filter(|dir| !dir.is_empty())
        .map(str::to_owned);
    if argv
        .iter()
        .chain([&path])
        .chain(&dir)
        .any(|text| text.contains('\0'))
    {
        errors.push("cmd, path and dir cannot hold NUL".to_owned());
    }
    let env = environment(query, &mut errors);
    let run_on = run_on(query, tty || detachable, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    Ok(ExecSpec {
        path,
        argv,
        env,
        dir,
        tty: tty.then_some(size),
        stdin,
        max_run_after_disconnect_ms: run_on,
        ports: false,
    })
}

fn switch(query: &Query, key: &str, errors: &mut Vec<String>) -> Option<bool> {
    match query.switch(key)? {
        Ok(on) => Some(on),
        Err(_) => {
            errors.push(format!("{key} must be true or false"));
            None
        }
    }
}

fn cells(query: &Query, key: &str, default: u16, errors: &mut Vec<String>) -> u16 {
    match query.get(key).map(str::parse::<u16>) {
        // Clients without a terminal of their own say 0.
        None | Some(Ok(0)) => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            errors.push(format!("{key} must be 1 to {}", u16::MAX));
            default
        }
    }
}

fn environment(query: &Query, errors: &mut Vec<String>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for pair in query.all("env").filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() && !pair.contains('\0') => {
                env.push((name.to_owned(), value.to_owned()));
            }
            Some(_) | None => {
                // One example is enough, however many there are.
                errors.push("env must be NAME=VALUE, without NUL".to_owned());
                break;
            }
        }
    }
    env
}

/// In milliseconds; `None`: for ever, which 0 means on the wire.
fn run_on(query: &Query, for_ever: bool, errors: &mut Vec<String>) -> Option<u64> {
    let default = if for_ever {
        Duration::ZERO
    } else {
        DEFAULT_RUN_ON
    };
    let text = query
        .get("max_run_after_disconnect")
        .filter(|text| !text.is_empty());
    let duration = match text.map(unit::parse_duration) {
        None => default,
        Some(Ok(duration)) => duration,
        Some(Err(error)) => {
            errors.push(format!("max_run_after_disconnect: {error}"));
            default
        }
    };
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    (!duration.is_zero()).then_some(ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(text: &str) -> ExecSpec {
        start(&Query::parse(text).expect("form encoding")).expect("valid")
    }

    fn refused(text: &str) -> String {
        let query = Query::parse(text).expect("form encoding");
        start(&query).expect_err("wrong").message().to_owned()
    }

    /// Behaviour reference §1.4.1 and Appendix A: request lines that SDKs send.
    #[test]
    fn real_request_lines_are_understood() {
        let go = started("cmd=sh&cmd=-c&cmd=exit+42&path=sh&stdin=false");
        assert_eq!(
            (go.path.as_str(), go.argv.len(), go.stdin),
            ("sh", 3, false)
        );
        assert_eq!(go.argv[2], "exit 42");
        assert_eq!(go.max_run_after_disconnect_ms, Some(10_000));
        let js = started("cmd=stty&cmd=size&path=stty&stdin=true&tty=true&rows=30&cols=90");
        assert_eq!(js.tty, Some(TtySize { rows: 30, cols: 90 }));
        assert_eq!(js.max_run_after_disconnect_ms, None);
        let env = started("cmd=env&path=env&env=TEST_VAR%3Dhello&env=A%3Db%3Dc&env=EMPTY%3D");
        assert_eq!(env.env[1], ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(env.env[2], ("EMPTY".to_owned(), String::new()));
        let tty = started("cmd=tty&cols=80&path=tty&rows=24&stdin=false&tty=true");
        assert!(!tty.stdin && tty.tty.is_some());
    }

    /// Behaviour reference §1.4.1: the defaults of the table.
    #[test]
    fn defaults_are_those_of_the_reference() {
        let bare = started("");
        assert_eq!(
            (bare.path.as_str(), bare.argv.as_slice()),
            ("bash", &["bash".to_owned()][..])
        );
        assert!(!bare.stdin);
        let tty = started("tty=true&cmd=bash");
        assert!(tty.stdin);
        assert_eq!(tty.tty, Some(TtySize { rows: 24, cols: 80 }));
        let path = started("path=/bin/ls");
        assert_eq!(path.argv, ["/bin/ls"]);
        let argv0 = started("cmd=-bash&path=/bin/bash");
        assert_eq!(
            (argv0.path.as_str(), argv0.argv[0].as_str()),
            ("/bin/bash", "-bash")
        );
    }

    /// Behaviour reference §1.4.1, §12 (detached sessions).
    #[test]
    fn sessions_outlive_their_clients_as_asked() {
        let ms = |text: &str| started(text).max_run_after_disconnect_ms;
        assert_eq!(ms("cmd=a&max_run_after_disconnect=1.5s"), Some(1500));
        assert_eq!(ms("cmd=a&max_run_after_disconnect=0s"), None);
        assert_eq!(ms("cmd=a&detachable=true"), None);
        assert_eq!(ms("cmd=a&tty=true&max_run_after_disconnect=5s"), Some(5000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("cmd=a&tty=maybe", "tty"),
            ("cmd=a&rows=-1", "rows"),
            ("cmd=a&cols=70000", "cols"),
            ("cmd=a&env=NOVALUE", "env"),
            ("cmd=a&env=%3Dx", "env"),
            ("cmd=a%00b", "NUL"),
            ("cmd=&path=", "cmd"),
            (
                "cmd=a&max_run_after_disconnect=soon",
                "max_run_after_disconnect",
            ),
        ] {
            assert!(refused(text).contains(word), "{text}: {}", refused(text));
        }
        let both = refused("cmd=a&tty=maybe&rows=x");
        assert!(both.contains("tty") && both.contains("rows"));
    }

    /// Behaviour reference §1.4.2, §11.3.
    #[test]
    fn attaching_names_a_session_and_a_place() {
        let query = Query::parse("id=20&output_offset=5&stderr_offset=7").expect("form encoding");
        let Ok(Wanted::Attach(id, spec)) = wanted(&query) else {
            panic!("an attach");
        };
        assert_eq!((id.as_str(), spec.session), ("20", SessionId(20)));
        assert_eq!((spec.stdout_offset, spec.stderr_offset), (5, 7));
        assert!(!spec.screen && spec.size.is_none());
        let joined = Query::parse("rows=50&cols=132").expect("form encoding");
        let spec = attach("20", &joined).expect("valid");
        assert!(
            spec.screen,
            "without an offset a terminal's screen is wanted"
        );
        let size = TtySize {
            rows: 50,
            cols: 132,
        };
        assert_eq!(spec.size, Some(size));
        for wrong in ["rows=x&cols=1", "output_offset=-1", "stderr_offset=all"] {
            let query = Query::parse(wrong).expect("form encoding");
            assert!(attach("20", &query).is_err(), "{wrong}");
        }
        let problem = attach("../x", &Query::default()).expect_err("no id");
        assert_eq!(problem.message(), "session not found: ../x");
    }
}
