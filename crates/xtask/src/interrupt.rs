//! Ctrl-C ends a command in order: what was set up is taken down again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, Outcome};

static SEEN: AtomicBool = AtomicBool::new(false);
static LISTENERS: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Turns the signals that end a program into a note that steps look at.
///
/// # Errors
/// The system refused the handlers.
pub fn watch() -> Outcome {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::io("take over Ctrl-C"))?;
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if !SEEN.swap(true, Ordering::SeqCst) {
                    eprintln!("\ninterrupted: taking down what was set up");
                }
                for listener in listeners().iter() {
                    listener();
                }
            }
        })
        .map_err(Failure::io("start the thread that waits for Ctrl-C"))?;
    Ok(())
}

/// Fails once the person asked to stop.
///
/// # Errors
/// [`Failure::Interrupted`].
pub fn check() -> Outcome {
    if SEEN.load(Ordering::SeqCst) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

/// Calls `listener` at each interruption from now on, from another thread.
pub fn subscribe(listener: impl Fn() + Send + 'static) {
    listeners().push(Box::new(listener));
}

fn listeners() -> std::sync::MutexGuard<'static, Vec<Box<dyn Fn() + Send>>> {
    LISTENERS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
