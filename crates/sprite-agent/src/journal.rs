//! A session's output, kept so that who comes later can read it: a bounded run of bytes with known offsets.
//!
//! Chunks are shared with the frames that are sent, so that output is never copied on its way to a client.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes that one stream of a session keeps. What a client has not got yet is kept besides.
///
/// Twice what a link has in flight: a client that comes back after its host was replaced finds what it misses.
pub(crate) const KEPT: usize = 2 * sprite_agent_api::link::WINDOW;

/// So many chunks, and they are laid together: a program that writes single bytes must not cost a chunk each.
const MOST_CHUNKS: usize = 512;

/// Output of one stream from `start` to `end`.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    chunks: VecDeque<Bytes>,
    start: u64,
    end: u64,
}

impl Journal {
    /// Offset of the first byte that is still kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte; so many bytes there were in all.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept now.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.end - self.start).expect("kept bytes fit in memory")
    }

    /// Adds output; lets go of the oldest, but of nothing from `wanted` on.
    pub(crate) fn push(&mut self, chunk: Bytes, wanted: u64) {
        self.end += chunk.len() as u64;
        self.chunks.push_back(chunk);
        self.trim(KEPT, wanted);
        if self.chunks.len() > MOST_CHUNKS {
            self.lay_together();
        }
    }

    /// Lets go of the oldest chunks beyond `keep` bytes, but of nothing from `wanted` on.
    pub(crate) fn trim(&mut self, keep: usize, wanted: u64) {
        while let Some(first) = self.chunks.front() {
            let after = self.start + first.len() as u64;
            if self.len() - first.len() < keep || after > wanted {
                return;
            }
            self.start = after;
            self.chunks.pop_front();
        }
    }

    fn lay_together(&mut self) {
        let mut whole = BytesMut::with_capacity(self.len());
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        let mut whole = whole.freeze();
        self.chunks.clear();
        while !whole.is_empty() {
            self.chunks
                .push_back(whole.split_to(whole.len().min(sprite_agent_api::MAX_DATA)));
        }
    }

    /// The next kept bytes from `offset` on, at most one frame; `None` at the end.
    pub(crate) fn next(&self, offset: u64) -> Option<Bytes> {
        let mut at = self.start;
        for chunk in &self.chunks {
            let after = at + chunk.len() as u64;
            if offset < after {
                let skip = usize::try_from(offset.saturating_sub(at)).expect("within a chunk");
                let most = chunk.len().min(skip + sprite_agent_api::MAX_DATA);
                return Some(chunk.slice(skip..most));
            }
            at = after;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(journal: &Journal, mut offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = journal.next(offset) {
            offset += chunk.len() as u64;
            out.extend_from_slice(&chunk);
        }
        out
    }

    #[test]
    fn single_bytes_are_kept_in_few_chunks() {
        let mut journal = Journal::default();
        for i in 0..5000u32 {
            journal.push(Bytes::copy_from_slice(&[i.to_le_bytes()[0]]), u64::MAX);
        }
        assert!(journal.chunks.len() <= MOST_CHUNKS);
        assert_eq!(
            read(&journal, 4990),
            (4990..5000u32)
                .map(|i| i.to_le_bytes()[0])
                .collect::<Vec<_>>()
        );
        assert_eq!(read(&journal, 0).len(), 5000);
    }

    #[test]
    fn the_oldest_goes_unless_it_is_wanted() {
        let mut journal = Journal::default();
        let chunk = Bytes::from(vec![7; KEPT / 4]);
        for _ in 0..8 {
            journal.push(chunk.clone(), 0);
        }
        assert_eq!((journal.start(), journal.len()), (0, 2 * KEPT));
        journal.push(chunk.clone(), u64::MAX);
        assert_eq!(journal.len(), KEPT);
        assert_eq!(journal.end(), 9 * (KEPT / 4) as u64);
        assert_eq!(read(&journal, journal.start()).len(), KEPT);
    }
}
