//! What a session's terminal shows, so that who joins it sees that at once, at the size of its own terminal.
//!
//! The session's output feeds a model of a terminal. Its bytes are hostile: a size that takes too much memory gets
//! no model, and a model that panics or takes too much time is given up. Without one the output itself is replayed,
//! as far as it is kept.

mod modes;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sprite_agent_api::message::TtySize;

use crate::log::say;
use modes::Modes;

/// Cells of a screen at most: 200 lines of 320 characters. A cell takes 16 bytes, and there are two screens.
const MOST_CELLS: usize = 64_000;

/// Lines above the screen that are kept, at most as many as have so many cells.
const HISTORY_LINES: usize = 500;
const HISTORY_CELLS: usize = 64_000;

/// Bytes that the model takes before it is looked at whether they were worth their time.
const SLICE: usize = 512;

/// A slice takes microseconds; a few escape sequences ("repeat 65,535 times") can make it a thousand times as much.
const SLICE_WITHIN: Duration = Duration::from_millis(50);

/// A terminal's model.
pub(crate) struct Screen {
    /// `None` once it was given up.
    terminal: Option<avt::Terminal>,
    /// The beginning of a character whose rest has not come yet.
    torn: Vec<u8>,
    modes: Modes,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// A blank screen; `None` if it would be too large.
    pub(crate) fn new(size: TtySize) -> Option<Self> {
        let (cols, rows) = cells(size)?;
        let history = HISTORY_LINES.min(HISTORY_CELLS / cols);
        let terminal = avt::Terminal::with_scrollback(cols, rows, Some(history)).ok()?;
        Some(Self {
            terminal: Some(terminal),
            torn: Vec::new(),
            modes: Modes::default(),
        })
    }

    /// Shows what the session wrote.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for slice in bytes.chunks(SLICE) {
            if self.terminal.is_none() {
                return;
            }
            self.modes.feed(slice);
            let text = self.decode(slice);
            let since = thread_time();
            self.change(|terminal| terminal.feed(text.as_str()));
            if thread_time().saturating_sub(since) > SLICE_WITHIN {
                say("a terminal's screen takes too long to draw: joining it replays its output");
                self.terminal = None;
            }
        }
    }

    /// Gives it another size; lines that were broken at the old width are broken at the new one.
    pub(crate) fn resize(&mut self, size: TtySize) {
        match cells(size) {
            Some((cols, rows)) => self.change(|terminal| terminal.resize(cols, rows)),
            None => self.terminal = None,
        }
    }

    /// What a blank terminal of this size has to be sent to show the same and be in the same state; `None` if the
    /// model was given up.
    pub(crate) fn draw(&mut self) -> Option<Vec<u8>> {
        let mut drawn = None;
        let modes = &self.modes;
        let torn = &self.torn;
        if let Some(terminal) = &self.terminal {
            let draw = || draw(terminal, modes, torn);
            drawn = catch_unwind(AssertUnwindSafe(draw)).ok();
        }
        if drawn.is_none() {
            self.terminal = None;
        }
        drawn
    }

    fn change(&mut self, change: impl FnOnce(&mut avt::Terminal)) {
        if let Some(terminal) = &mut self.terminal
            && catch_unwind(AssertUnwindSafe(|| change(terminal))).is_err()
        {
            // Whatever state it is in is not to be trusted.
            self.terminal = None;
        }
    }

    /// The characters that are whole by now; what is none is shown as such.
    fn decode(&mut self, slice: &[u8]) -> String {
        let bytes = [self.torn.as_slice(), slice].concat();
        self.torn.clear();
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let torn = chunk.invalid();
            if torn.is_empty() {
                continue;
            }
            let unfinished = str::from_utf8(torn).is_err_and(|error| error.error_len().is_none());
            if chunks.peek().is_none() && unfinished {
                self.torn.extend_from_slice(torn);
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Columns and rows of a size that has a model.
fn cells(size: TtySize) -> Option<(usize, usize)> {
    let (cols, rows) = (usize::from(size.cols.max(1)), usize::from(size.rows.max(1)));
    (cols * rows <= MOST_CELLS).then_some((cols, rows))
}

fn draw(terminal: &avt::Terminal, modes: &Modes, torn: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    // Whatever the other terminal showed and was told before.
    text.push_str("\x1b[!p\x1b[r\x1b[0m\x1b[H\x1b[2J");
    let (_, rows) = terminal.size();
    let lines: Vec<&avt::Line> = terminal.primary_screen().all_lines().collect();
    let history = &lines[..lines.len().saturating_sub(rows)];
    for line in history {
        text.push_str(line.text().trim_end());
        text.push_str("\r\n");
    }
    if !history.is_empty() {
        // Out of sight, above the screen.
        text.extend(std::iter::repeat_n("\r\n", rows - 1));
        text.push_str("\x1b[H");
    }
    text.push_str(&modes.to_text());
    // It ends in the beginning of the sequence that is not finished, if there is one.
    plainly(&terminal.dump(), &mut text);
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(torn);
    bytes
}

/// Says the same in sequences that every terminal knows: no repetition, and the usual way to the other screen.
fn plainly(dump: &str, text: &mut String) {
    let mut rest = dump;
    let mut last = None;
    while let Some(at) = rest.find('\x1b') {
        let (before, sequence) = rest.split_at(at);
        text.push_str(before);
        last = before.chars().next_back().or(last);
        let digits = sequence.strip_prefix("\x1b[").map_or("", |s| {
            &s[..s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len()]
        });
        let after = 2 + digits.len();
        match (last, digits.parse::<usize>()) {
            (Some(last), Ok(times)) if sequence[after..].starts_with('b') => {
                text.extend(std::iter::repeat_n(last, times));
                rest = &sequence[after + 1..];
            }
            _ => {
                text.push('\x1b');
                rest = &sequence[1..];
            }
        }
    }
    text.push_str(rest);
    *text = text
        .replace("\x1b[?1047h", "\x1b[?1049h")
        .replace("\x1b[?1047l", "\x1b[?1049l");
}

/// Time that this thread has computed.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
