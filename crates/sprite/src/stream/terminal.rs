//! Our own terminal: its size, its raw mode, and giving it back as it was.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Mutex, Once, PoisonError};

use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use rustix::termios::{tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use sprite_client::TtySize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The size of a terminal that does not tell it. Source: behaviour reference §1.4.1.
const DEFAULT_SIZE: TtySize = TtySize { rows: 24, cols: 80 };

/// The terminal's settings as they were, while they are changed. In one place for the whole process, so that a
/// panic on any thread can put them back.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

/// The size of the terminal that shows our output, if there is one.
pub(crate) fn size() -> Option<TtySize> {
    let known = [stdout(), stdin(), stderr()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())?;
    // A terminal that nobody has measured says 0.
    (known.ws_row > 0 && known.ws_col > 0).then_some(TtySize {
        rows: known.ws_row,
        cols: known.ws_col,
    })
}

/// The size of our terminal, or the usual one.
pub(crate) fn size_or_default() -> TtySize {
    size().unwrap_or(DEFAULT_SIZE)
}

/// Whether reading standard input would stop us: a job in the background must not read its terminal.
pub(crate) fn is_foreground() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == rustix::process::getpgrp())
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(saved) = saved {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &saved);
    }
}

/// The terminal is changed as long as this lives.
#[derive(Debug)]
pub(crate) struct Changed(());

impl Changed {
    fn new(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        let saved = tcgetattr(stdin())?;
        let mut changed = saved.clone();
        change(&mut changed);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let guard = Self(());
        tcsetattr(stdin(), OptionalActions::Drain, &changed)?;
        Ok(guard)
    }

    /// Every key goes to the program as it is typed.
    pub(crate) fn raw() -> io::Result<Self> {
        Self::new(Termios::make_raw)
    }

    fn silent() -> io::Result<Self> {
        Self::new(|settings| settings.local_modes.remove(LocalModes::ECHO))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        restore();
    }
}

/// Asks for a line and does not show what is typed. Only for a terminal on standard input.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when we are told to end meanwhile; the terminal shows what is typed again.
pub(crate) async fn hidden_line(prompt: &str) -> io::Result<String> {
    debug_assert!(io::stdin().is_terminal());
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut quits = signal(SignalKind::quit())?;
    // First silent, then asking: whoever types at once is not shown either.
    let silent = Changed::silent()?;
    write!(io::stderr(), "{prompt}")?;
    let (teller, line) = oneshot::channel();
    // A thread that ends with the process: a read of a terminal cannot be called back.
    let reading = move || {
        let mut line = String::new();
        let read = io::stdin()
            .lock()
            .read_line(&mut line)
            .map(|_| line.trim().to_owned());
        let _ = teller.send(read);
    };
    std::thread::Builder::new()
        .name("prompt".to_owned())
        .spawn(reading)?;
    let answer = tokio::select! {
        line = line => line.map_err(io::Error::other).flatten(),
        _ = interrupts.recv() => Err(io::ErrorKind::Interrupted.into()),
        _ = terminations.recv() => Err(io::ErrorKind::Interrupted.into()),
        _ = hangups.recv() => Err(io::ErrorKind::Interrupted.into()),
        _ = quits.recv() => Err(io::ErrorKind::Interrupted.into()),
    };
    drop(silent);
    writeln!(io::stderr())?;
    answer
}
