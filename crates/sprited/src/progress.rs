//! Progress on stderr, with the time that each step took.

use std::sync::Mutex;
use std::time::Instant;

use sprite_disk::Progress;

/// Tells steps as lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    last: Mutex<Option<Instant>>,
}

impl Progress for Lines {
    fn step(&self, text: &str) {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        match last.replace(now) {
            Some(before) => eprintln!(
                "  {text} (the step before took {:.1} s)",
                (now - before).as_secs_f64()
            ),
            None => eprintln!("  {text}"),
        }
    }

    fn detail(&self, text: &str) {
        tracing::debug!("{text}");
    }
}
