//! A command without a terminal: three streams, and the signals that are sent to us.

use std::pin::pin;

use sprite_client::{Child, ChildOutput, ChildStdin, Controls, Signal};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use super::inlet::Inlet;
use super::outlet::{Outlet, OutletError};
use super::{Ended, RelayError};

/// Source: signal(7).
const SIGINT: u8 = 2;
/// How often Ctrl-C is passed on before it means that the user wants to leave.
const PATIENCE: u32 = 3;

/// What SIGQUIT (Ctrl-\) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quit {
    /// A signal for the command.
    Forward,
    /// Let go of the session.
    Detach,
}

/// Relays until the command has ended.
pub(crate) async fn relay(
    child: &mut Child,
    input: Option<Inlet>,
    quit: Quit,
) -> Result<Ended, RelayError> {
    let controls = child.controls();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut output = pin!(async {
        tokio::try_join!(
            pump(stdout, Outlet::stdout()),
            pump_errors(stderr, Outlet::stderr())
        )
    });
    let mut input = pin!(feed(input, child.stdin.take()));
    let mut signals = pin!(pass_signals(&controls, quit));
    let mut fed = false;
    loop {
        tokio::select! {
            done = &mut output => match done {
                Ok(_) => break,
                Err(Stopped::Closed) => {
                    // What a local command would get from the pipe itself. That it may have ended is fine.
                    let _ = controls.signal(&Signal::pipe()).await;
                    return Ok(Ended::OutputClosed);
                }
                Err(Stopped::Failed { stream, source }) => {
                    let _ = controls.signal(&Signal::pipe()).await;
                    return Err(RelayError::Output { stream, source });
                }
            },
            done = &mut input, if !fed => {
                done?;
                fed = true;
            }
            left = &mut signals => return left,
        }
    }
    Ok(Ended::Exit(child.wait().await?))
}

/// Why output is not passed on any further.
enum Stopped {
    Closed,
    Failed {
        stream: &'static str,
        source: std::io::Error,
    },
}

impl From<OutletError> for Stopped {
    fn from(error: OutletError) -> Self {
        match error {
            OutletError::Closed => Self::Closed,
            OutletError::Failed { stream, source } => Self::Failed { stream, source },
        }
    }
}

/// Passes output on to its end. An output that breaks off ends here too: the outcome tells why.
async fn pump(output: Option<ChildOutput>, mut outlet: Outlet) -> Result<(), Stopped> {
    if let Some(mut output) = output {
        while let Ok(Some(chunk)) = output.chunk().await {
            outlet.send(chunk).await?;
        }
    }
    Ok(outlet.finish().await?)
}

/// As [`pump`], but nobody has to listen: a command goes on when its complaints are not wanted.
async fn pump_errors(output: Option<ChildOutput>, outlet: Outlet) -> Result<(), Stopped> {
    match pump(output, outlet).await {
        Err(Stopped::Closed) | Ok(()) => Ok(()),
        Err(failed @ Stopped::Failed { .. }) => Err(failed),
    }
}

/// Passes input on, and its end. When the command has ended it needs no more.
async fn feed(input: Option<Inlet>, stdin: Option<ChildStdin>) -> Result<(), RelayError> {
    let (Some(mut input), Some(mut stdin)) = (input, stdin) else {
        return Ok(());
    };
    while let Some(chunk) = input.next().await {
        // An input that cannot be read has no end to pass on: the command must not take it for whole.
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(source) => return Err(RelayError::Input(source)),
        };
        if stdin.write_all(&chunk).await.is_err() {
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}

/// Passes signals on. Returns when the user wants to leave.
async fn pass_signals(controls: &Controls, quit: Quit) -> Result<Ended, RelayError> {
    let listen = |kind| signal(kind).map_err(RelayError::Signals);
    let mut interrupts = listen(SignalKind::interrupt())?;
    let mut terminations = listen(SignalKind::terminate())?;
    let mut hangups = listen(SignalKind::hangup())?;
    let mut quits = listen(SignalKind::quit())?;
    let mut interrupted = 0;
    loop {
        let passed = tokio::select! {
            _ = interrupts.recv() => {
                interrupted += 1;
                if interrupted >= PATIENCE {
                    return Ok(Ended::Left { signal: SIGINT });
                }
                Signal::int()
            }
            _ = terminations.recv() => Signal::term(),
            _ = hangups.recv() => Signal::hup(),
            _ = quits.recv() => match quit {
                Quit::Detach => return Ok(Ended::Detached),
                Quit::Forward => "QUIT".parse().expect("a signal's name"),
            },
        };
        // A command that has ended needs no signal; the streams tell its end.
        let _ = controls.signal(&passed).await;
    }
}
