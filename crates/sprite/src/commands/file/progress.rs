//! How far a transfer is: told on a terminal, if it takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Transfers that are shorter say nothing.
const SILENT_FOR: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    /// `bytes` is how many there are to move, if that is known.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::hidden());
        let style = match bytes {
            Some(_) => "{bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            None => "{bytes} {bytes_per_sec} {msg}",
        };
        let style = ProgressStyle::with_template(style).expect("the template is one");
        Self {
            bar: bar.with_style(style),
            began: Instant::now(),
        }
    }

    pub(super) fn moved(&self, bytes: u64) {
        self.bar.inc(bytes);
        let late = self.began.elapsed() >= SILENT_FOR;
        if late && self.bar.is_hidden() && std::io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// The name of what is being moved; others are moved at the same time.
    pub(super) fn at(&self, name: &str) {
        self.bar.set_message(crate::show::plain(name));
    }

    /// Tells something that stays on the screen.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| crate::show::note(text));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bar.position()
    }
}
