//! A command with a terminal, on ours: keys go out, the screen comes in, the size follows.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprite_client::{Child, ChildOutput, ChildStdin, Controls, TtySize};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::inlet::Inlet;
use super::outlet::{Outlet, OutletError};
use super::screen::Screen;
use super::terminal::{self, Changed};
use super::{Ended, RelayError};
use crate::browser::{Question, Questions};

/// Ctrl-\ as a terminal sends it.
const DETACH: u8 = 0x1c;
/// Ctrl-\ as a terminal with the kitty keyboard protocol sends it.
const DETACH_KITTY: &[u8] = b"\x1b[92;5u";

/// Colours, fonts and hidden text off: a question is to be read. Source: ECMA-48 §8.3.117 (SGR), XTerm Control
/// Sequences (designate G0).
const PLAIN: &str = "\u{f}\u{1b}(B\u{1b}[0m";
/// What is typed so soon behind a question was not meant for it.
const READ_FIRST: Duration = Duration::from_millis(500);
/// How long a question is open; afterwards it was answered with no.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Relays until the command has ended or the user lets go of it with Ctrl-\.
///
/// Our terminal is in raw mode meanwhile and afterwards as it was, however this ends. Without a terminal on
/// standard input, input is passed on as it is and there is no key to let go. `told` is the size that the command
/// knows already. What is `asked` meanwhile is shown between the output and answered with a key.
pub(crate) async fn relay_tty(
    child: &mut Child,
    told: Option<TtySize>,
    asked: Questions,
) -> Result<Ended, RelayError> {
    let controls = child.controls();
    let has_keys = io::stdin().is_terminal();
    let _raw = match has_keys {
        true => Some(Changed::raw().map_err(RelayError::Terminal)?),
        false => None,
    };
    let mut screen = Screen::new();
    let ended = {
        let desk = Desk::default();
        let mut output = pin!(show(child.stdout.take(), &mut screen, asked, &desk));
        let mut input = pin!(type_in(Inlet::open(), child.stdin.take(), has_keys, &desk));
        let mut size = pin!(follow_size(&controls, told));
        let mut leave = pin!(asked_to_leave());
        let mut typed_all = false;
        loop {
            tokio::select! {
                shown = &mut output => break match shown {
                    Ok(()) => child.wait().await.map(Ended::Exit).map_err(RelayError::from),
                    Err(OutletError::Closed) => Ok(Ended::OutputClosed),
                    Err(OutletError::Failed { stream, source }) => {
                        Err(RelayError::Output { stream, source })
                    }
                },
                typed = &mut input, if !typed_all => match typed {
                    Ok(Typed::Detach) => break Ok(Ended::Detached),
                    Ok(Typed::All) => typed_all = true,
                    Err(source) => break Err(RelayError::Input(source)),
                },
                failed = &mut size => break Err(failed),
                left = &mut leave => break left,
            }
        }
    };
    let rest = screen.rest();
    if io::stdout().is_terminal() && !rest.is_empty() {
        let mut outlet = Outlet::stdout();
        // A terminal that is gone needs no rest.
        let _ = outlet.send(Bytes::from(rest)).await;
        let _ = outlet.finish().await;
    }
    ended
}

/// Shows output to its end, and questions between. An output that breaks off ends here too: the outcome tells why.
async fn show(
    output: Option<ChildOutput>,
    screen: &mut Screen,
    mut asked: Questions,
    desk: &Desk,
) -> Result<(), OutletError> {
    let mut outlet = Outlet::stdout();
    if let Some(mut output) = output {
        loop {
            tokio::select! {
                chunk = output.chunk() => match chunk {
                    Ok(Some(chunk)) => {
                        screen.watch(&chunk);
                        outlet.send(chunk).await?;
                    }
                    Ok(None) | Err(_) => break,
                },
                question = asked.next() => ask(question, &mut outlet, desk).await?,
            }
        }
    }
    outlet.finish().await
}

/// Shows a question, and nothing else until it is answered: a hostile program must not write over it.
async fn ask(question: Question, outlet: &mut Outlet, desk: &Desk) -> Result<(), OutletError> {
    let Question { text, answer } = question;
    let shown = format!("{PLAIN}\r\n{text}");
    outlet.send(Bytes::from(shown)).await?;
    let key = timeout(ANSWER_WITHIN, desk.next_key()).await;
    let yes = matches!(key, Ok(b'y' | b'Y'));
    let said = if yes { "yes\r\n" } else { "no\r\n" };
    outlet.send(Bytes::from_static(said.as_bytes())).await?;
    // Whoever asked may be gone.
    let _ = answer.send(yes);
    Ok(())
}

/// Where a key goes while a question is open.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Option<(Instant, oneshot::Sender<u8>)>>,
}

impl Desk {
    /// The first key that is typed from now on, once there was time to read.
    async fn next_key(&self) -> u8 {
        let (sender, key) = oneshot::channel();
        *self.waiting() = Some((Instant::now() + READ_FIRST, sender));
        // Only a newer question takes its place, and there is one at a time.
        match key.await {
            Ok(key) => key,
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes what was typed, if it answers a question; else it is for the sprite.
    fn takes(&self, typed: &[u8]) -> bool {
        let (Some(key), mut waiting) = (typed.first(), self.waiting()) else {
            return false;
        };
        // Nobody waits any more, or what was typed was on its way before the question could be read.
        let open = waiting
            .as_ref()
            .is_some_and(|(from, sender)| *from <= Instant::now() && !sender.is_closed());
        match waiting.take_if(|_| open) {
            Some((_, sender)) => sender.send(*key).is_ok(),
            None => false,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<(Instant, oneshot::Sender<u8>)>> {
        // Nothing panics while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Typed {
    /// The input is at its end.
    All,
    /// The key to let go was typed.
    Detach,
}

async fn type_in(
    mut input: Inlet,
    stdin: Option<ChildStdin>,
    has_keys: bool,
    desk: &Desk,
) -> io::Result<Typed> {
    let Some(mut stdin) = stdin else {
        return Ok(Typed::All);
    };
    while let Some(chunk) = input.next().await {
        let chunk = chunk?;
        if has_keys && desk.takes(&chunk) {
            continue;
        }
        let detach = if has_keys { detach_at(&chunk) } else { None };
        // What was typed before the key still counts.
        let typed = &chunk[..detach.unwrap_or(chunk.len())];
        if !typed.is_empty() && stdin.write_all(typed).await.is_err() {
            return Ok(Typed::All);
        }
        if detach.is_some() {
            return Ok(Typed::Detach);
        }
    }
    // A terminal that hung up has gone away, which is no Ctrl-D; a pipe that ended has said all.
    if has_keys {
        return Ok(Typed::Detach);
    }
    let _ = stdin.shutdown().await;
    Ok(Typed::All)
}

fn detach_at(chunk: &[u8]) -> Option<usize> {
    let key = chunk.iter().position(|byte| *byte == DETACH);
    let sequence = chunk
        .windows(DETACH_KITTY.len())
        .position(|window| window == DETACH_KITTY);
    match (key, sequence) {
        (Some(key), Some(sequence)) => Some(key.min(sequence)),
        (key, sequence) => key.or(sequence),
    }
}

/// Tells the command every new size of our terminal. Returns only when that is not possible.
async fn follow_size(controls: &Controls, mut told: Option<TtySize>) -> RelayError {
    let mut changes = match signal(SignalKind::window_change()) {
        Ok(changes) => changes,
        Err(source) => return RelayError::Signals(source),
    };
    loop {
        let size = terminal::size();
        if let Some(size) = size
            && told != Some(size)
        {
            // A command that has ended needs no size.
            let _ = controls.resize(size).await;
            told = Some(size);
        }
        changes.recv().await;
    }
}

/// Returns when this process is told to end: the session goes on without it.
async fn asked_to_leave() -> Result<Ended, RelayError> {
    let listen = |kind| signal(kind).map_err(RelayError::Signals);
    let mut hangups = listen(SignalKind::hangup())?;
    let mut interrupts = listen(SignalKind::interrupt())?;
    let mut quits = listen(SignalKind::quit())?;
    let mut terminations = listen(SignalKind::terminate())?;
    // Numbers: signal(7).
    let signal = tokio::select! {
        _ = hangups.recv() => 1,
        _ = interrupts.recv() => 2,
        _ = quits.recv() => 3,
        _ = terminations.recv() => 15,
    };
    Ok(Ended::Left { signal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_to_let_go_is_found_in_both_its_forms() {
        assert_eq!(detach_at(b"ls\r"), None);
        assert_eq!(detach_at(b"ls\x1c"), Some(2));
        assert_eq!(detach_at(b"x\x1b[92;5u"), Some(1));
        assert_eq!(detach_at(b"\x1b[92;5u\x1c"), Some(0));
    }
}
