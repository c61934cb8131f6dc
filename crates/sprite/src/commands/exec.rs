//! `sprite exec`: run a command in a sprite.

use std::env;
use std::io::{self, IsTerminal};

use sprite_client::{Child, Command, ExecError, PostBody, PostFrame, Sprite, Stdio};

use crate::attend::{self, Lines, Wanted};
use crate::browser::{BrowserArgs, Consent, questions};
use crate::context::Context;
use crate::failure::Failure;
use crate::show;
use crate::stream::{Ended, Inlet, Outlet, OutletError, Quit, RelayError};
use crate::stream::{is_foreground, relay, relay_tty, size_or_default};

use super::upload::{self, Upload};

/// Run a command in a sprite
///
/// Everything after the first word that is no option, or after `--`, is the command with its arguments; no shell
/// is involved. What is on standard input goes to the command, with its end. Ctrl-C interrupts the command. Ports that
/// open in the sprite meanwhile can be reached at 127.0.0.1 here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite exec -- uname -a
  sprite exec -- sh -c 'cd /tmp && ls | wc -l'
  sprite exec --tty -- htop
  sprite exec --env 'GREETING=hello,NAME=you' --dir /tmp -- env
  tar c . | sprite exec -- tar x -C /home/sprite
  sprite exec --file ./job.sh:/tmp/job.sh -- sh /tmp/job.sh")]
pub(crate) struct Args {
    /// Give the command a terminal
    #[arg(long, conflicts_with = "http_post")]
    tty: bool,
    /// Let it run on when the connection is gone; sprite attach joins it again
    #[arg(long, conflicts_with = "http_post")]
    detachable: bool,
    /// Variables for the command, several after commas (may be repeated)
    #[arg(long, value_name = "K=V[,K2=V2]")]
    env: Vec<String>,
    /// Directory to run it in
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Use one HTTP request instead of a WebSocket: no terminal, no signals
    #[arg(long)]
    http_post: bool,
    /// Copy a file into the sprite first (may be repeated)
    #[arg(long, value_name = "SRC:DEST")]
    file: Vec<Upload>,
    /// Do not forward the ports that the command opens
    #[arg(long)]
    no_port_forward: bool,
    #[command(flatten)]
    browser: BrowserArgs,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let vars = variables(&args.env)?;
    for file in &args.file {
        upload::copy(context, &sprite, file).await?;
    }
    let (program, rest) = args
        .command
        .split_first()
        .expect("the command line requires it");
    let mut command = sprite.command(program).args(rest).envs(vars);
    if let Some(dir) = args.dir {
        command = command.current_dir(dir);
    }
    if args.detachable {
        command = command.detachable();
    }
    let wanted = Wanted {
        ports: !args.no_port_forward,
        browser: args.browser.consent(args.tty),
    };
    if wanted.browser != Consent::Never {
        command = command.take_urls();
    }
    let code = if args.http_post {
        over_http(context, &sprite, command).await?
    } else if args.tty {
        let size = size_or_default();
        let command = command.envs(terminal_env()).tty(size.rows, size.cols);
        let mut child = spawn(context, &sprite, &command).await?;
        let (asker, asked) = questions();
        let lines = Lines::of_terminal();
        let _attending = attend::start(&sprite, &mut child, wanted, lines, Some(asker));
        let ended = relay_tty(&mut child, Some(size), asked).await;
        conclude(context, &sprite, child, ended).await?
    } else {
        let stdin = if wants_input() {
            Stdio::Piped
        } else {
            Stdio::Null
        };
        let mut child = spawn(context, &sprite, &command.stdin(stdin)).await?;
        let _attending = attend::start(&sprite, &mut child, wanted, Lines::Plain, None);
        let input = (stdin == Stdio::Piped).then(Inlet::open);
        let ended = relay(&mut child, input, Quit::Forward).await;
        conclude(context, &sprite, child, ended).await?
    };
    if code == 127 && rest.is_empty() && program.contains(' ') {
        show::note(&format!(
            "hint: for a line of a shell: sprite exec -- sh -c '{program}'"
        ));
    }
    Ok(code)
}

async fn spawn(context: &Context, sprite: &Sprite, command: &Command) -> Result<Child, Failure> {
    command
        .spawn()
        .await
        .map_err(|error| context.exec_failure(&error, sprite))
}

/// A job in the background must not read its terminal: that would stop it.
fn wants_input() -> bool {
    !io::stdin().is_terminal() || is_foreground()
}

/// What a program needs to know about our terminal. Source: behaviour reference §3.
pub(super) fn terminal_env() -> Vec<(&'static str, String)> {
    let told = ["TERM", "COLORTERM", "LANG", "LC_ALL"];
    told.into_iter()
        .filter_map(|name| Some((name, env::var(name).ok()?)))
        .collect()
}

/// Reads `K=V,K2=V2`. A piece after a comma that is no assignment belongs to the value before it, so that
/// `OPTS=a,b` is one variable.
fn variables(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut all: Vec<(String, String)> = Vec::new();
    for text in texts {
        let before = all.len();
        for piece in text.split(',') {
            match piece.split_once('=') {
                Some((name, value)) if is_name(name.trim()) => {
                    all.push((name.trim().to_owned(), value.to_owned()));
                }
                Some(_) | None => match all.get_mut(before..).and_then(<[_]>::last_mut) {
                    Some((_, value)) => {
                        value.push(',');
                        value.push_str(piece);
                    }
                    None => {
                        return Err(Failure::usage(format!(
                            "--env {piece:?} is not of the form NAME=VALUE"
                        )));
                    }
                },
            }
        }
    }
    Ok(all)
}

fn is_name(text: &str) -> bool {
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    legal && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Ends a relayed command: the exit code, or why there is none.
pub(super) async fn conclude(
    context: &Context,
    sprite: &Sprite,
    mut child: Child,
    ended: Result<Ended, RelayError>,
) -> Result<u8, Failure> {
    let session = child.session().map(|info| info.id);
    child.close().await;
    let rejoin = session
        .map(|id| format!("; join it again: sprite attach -s {} {id}", sprite.name()))
        .unwrap_or_default();
    match ended {
        // Codes are bytes; a server that says otherwise still means a failure.
        Ok(Ended::Exit(status)) => Ok(u8::try_from(status.code()).unwrap_or(u8::MAX)),
        Ok(Ended::Detached) => {
            show::note(&format!("let go of the session{rejoin}"));
            Ok(0)
        }
        Ok(Ended::OutputClosed) => Ok(141),
        Ok(Ended::Left { signal }) => {
            show::note(&format!("left; the command may run on{rejoin}"));
            Ok(128 + signal)
        }
        Err(RelayError::Exec(error)) => Err(context.exec_failure(&error, sprite)),
        Err(error) => Err(Failure::caused("the streams of the command", &error)),
    }
}

async fn over_http(context: &Context, sprite: &Sprite, command: Command) -> Result<u8, Failure> {
    let failed = |error: ExecError| context.exec_failure(&error, sprite);
    let body = if wants_input() {
        PostBody::Reader(Inlet::open().into_reader())
    } else {
        PostBody::Empty
    };
    let mut exec = command.post(body).await.map_err(failed)?;
    let (mut stdout, mut stderr) = (Outlet::stdout(), Outlet::stderr());
    let status = loop {
        let written = match exec.next().await.map_err(failed)? {
            PostFrame::Stdout(bytes) => stdout.send(bytes).await,
            PostFrame::Stderr(bytes) => stderr.send(bytes).await,
            PostFrame::Exit(status) => break status,
        };
        if let Some(code) = written_or_closed(written)? {
            return Ok(code);
        }
    };
    for finished in [stdout.finish().await, stderr.finish().await] {
        if let Some(code) = written_or_closed(finished)? {
            return Ok(code);
        }
    }
    Ok(u8::try_from(status.code()).unwrap_or(u8::MAX))
}

/// The exit code if nobody reads our output any more.
fn written_or_closed(written: Result<(), OutletError>) -> Result<Option<u8>, Failure> {
    match written {
        Ok(()) => Ok(None),
        Err(OutletError::Closed) => Ok(Some(141)),
        Err(OutletError::Failed { stream, source }) => {
            Err(Failure::caused(format!("cannot write {stream}"), &source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Option<Vec<(String, String)>> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        variables(&texts).ok()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn variables_are_split_at_commas_that_begin_a_variable() {
        assert_eq!(read(&["A=1,B=2"]), pairs(&[("A", "1"), ("B", "2")]));
        assert_eq!(
            read(&["OPTS=a,b,C=x=y"]),
            pairs(&[("OPTS", "a,b"), ("C", "x=y")])
        );
        assert_eq!(read(&["A=", "B=,"]), pairs(&[("A", ""), ("B", ",")]));
        assert_eq!(
            read(&["URL=http://h/?a,1=2"]),
            pairs(&[("URL", "http://h/?a,1=2")])
        );
        for bad in ["A", "=x", "1A=x", "", "A B=x"] {
            assert_eq!(read(&[bad]), None, "{bad:?}");
        }
        assert_eq!(read(&["A=1", "stray"]), None);
    }
}
