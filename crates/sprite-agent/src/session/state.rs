//! What changes in a session while it lives: its output, and who reads how far.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use sprite_agent_api::FrameKind;
use sprite_agent_api::message::{Kept, TtySize};
use tokio::time::Instant;

use crate::journal::{Journal, Readers};
use crate::screen::Screen;

/// One of the two streams that a session writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(super) fn frame(self) -> FrameKind {
        match self {
            Self::Stdout => FrameKind::Stdout,
            Self::Stderr => FrameKind::Stderr,
        }
    }
}

/// How far a client has got, in each stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
}

impl Cursor {
    pub(super) fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    pub(super) fn advance(&mut self, stream: Stream, bytes: usize) {
        match stream {
            Stream::Stdout => self.stdout += bytes as u64,
            Stream::Stderr => self.stderr += bytes as u64,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    stdout: Journal,
    stderr: Journal,
    pub(super) clients: HashMap<u64, Cursor>,
    pub(super) next_client: u64,
    /// What the last client had got, for as long as the rest is held.
    pub(super) held: Option<(Cursor, Instant)>,
    pub(super) detached_since: Option<Instant>,
    pub(super) exit: Option<u8>,
    pub(super) size: Cells,
    /// What its terminal shows, while it runs.
    pub(super) screen: Option<Screen>,
    pub(super) last_activity: Option<SystemTime>,
    pub(super) rate: Rate,
}

impl State {
    pub(super) fn journal(&self, stream: Stream) -> &Journal {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    pub(super) fn journal_mut(&mut self, stream: Stream) -> &mut Journal {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Who reads `stream`. Who left lately reads nothing, but still has a place.
    pub(super) fn readers(&self, stream: Stream) -> Readers {
        let journal = self.journal(stream);
        let clients = || self.clients.values().map(|cursor| cursor.of(stream));
        let held = self.held.iter().map(|(cursor, _)| cursor.of(stream));
        Readers {
            front: clients().filter(|at| journal.is_in_memory(*at)).max(),
            rear: clients().chain(held).min(),
        }
    }

    pub(super) fn has_room(&self, stream: Stream) -> bool {
        self.journal(stream).has_room(self.readers(stream))
    }

    /// Lets memory and disk follow the readers; returns the streams for which the writer has to be asked.
    #[must_use]
    pub(super) fn settle(&mut self) -> Vec<Stream> {
        self.each(Journal::settle)
    }

    #[must_use]
    pub(super) fn evict(&mut self) -> Vec<Stream> {
        self.each(Journal::evict)
    }

    fn each(&mut self, act: fn(&mut Journal, Readers) -> bool) -> Vec<Stream> {
        let asks = |stream: &Stream| {
            let readers = self.readers(*stream);
            act(self.journal_mut(*stream), readers)
        };
        Stream::BOTH.into_iter().filter(asks).collect()
    }

    pub(super) fn kept(&self, stream: Stream) -> Kept {
        let journal = self.journal(stream);
        Kept {
            from: journal.start(),
            total: journal.end(),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cells {
    pub(super) rows: u16,
    pub(super) cols: u16,
}

impl From<TtySize> for Cells {
    fn from(size: TtySize) -> Self {
        Self {
            rows: size.rows,
            cols: size.cols,
        }
    }
}

/// Output of the last whole second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    since: Option<Instant>,
    bytes: u64,
    per_second: u64,
}

impl Rate {
    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let elapsed = now.duration_since(since);
        if elapsed >= Duration::from_secs(1) {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.per_second = self.bytes.saturating_mul(1000) / millis;
            self.bytes = 0;
            self.since = Some(now);
        }
    }

    pub(super) fn now(&self, now: Instant) -> u64 {
        match self.since {
            Some(since) if now.duration_since(since) < Duration::from_secs(3) => {
                self.per_second.max(self.bytes)
            }
            Some(_) | None => 0,
        }
    }
}
