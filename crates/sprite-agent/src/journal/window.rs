//! The newest output of a stream, in memory: a run of bytes with known offsets.
//!
//! Chunks are shared with the frames that are sent, so that output is never copied on its way to a client.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// So many chunks, and they are laid together: a program that writes single bytes must not cost a chunk each.
const MOST_CHUNKS: usize = 512;

/// Output of one stream from `start` to `end`.
#[derive(Debug, Default)]
pub(super) struct Window {
    chunks: VecDeque<Bytes>,
    start: u64,
    end: u64,
}

impl Window {
    /// Offset of the first byte that is still kept.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte; so many bytes there were in all.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept now.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.end - self.start).expect("kept bytes fit in memory")
    }

    /// Adds output.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.end += chunk.len() as u64;
        self.chunks.push_back(chunk);
        if self.chunks.len() > MOST_CHUNKS {
            self.lay_together();
        }
    }

    /// Lets go of the oldest chunks beyond `keep` bytes, but of nothing from `wanted` on.
    pub(super) fn trim(&mut self, keep: usize, wanted: u64) {
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
    pub(super) fn next(&self, offset: u64) -> Option<Bytes> {
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

    /// The bytes from `offset` on, at most so many.
    pub(super) fn batch(&self, mut offset: u64, most: usize) -> Vec<Bytes> {
        let mut batch = Vec::new();
        let mut left = most;
        let mut at = self.start;
        for chunk in &self.chunks {
            let after = at + chunk.len() as u64;
            if offset < after && left > 0 {
                let skip = usize::try_from(offset - at).expect("within a chunk");
                let until = chunk.len().min(skip + left);
                batch.push(chunk.slice(skip..until));
                left -= until - skip;
                offset = after;
            }
            at = after;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(window: &Window, mut offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = window.next(offset) {
            offset += chunk.len() as u64;
            out.extend_from_slice(&chunk);
        }
        out
    }

    #[test]
    fn single_bytes_are_kept_in_few_chunks() {
        let mut window = Window::default();
        for i in 0..5000u32 {
            window.push(Bytes::copy_from_slice(&[i.to_le_bytes()[0]]));
        }
        assert!(window.chunks.len() <= MOST_CHUNKS);
        let last: Vec<u8> = (4990..5000u32).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(read(&window, 4990), last);
        assert_eq!(read(&window, 0).len(), 5000);
    }

    #[test]
    fn the_oldest_goes_unless_it_is_wanted() {
        let mut window = Window::default();
        for _ in 0..8 {
            window.push(Bytes::from(vec![7; 100]));
        }
        window.trim(400, 0);
        assert_eq!((window.start(), window.len()), (0, 800));
        window.trim(400, 150);
        assert_eq!(window.start(), 100, "a chunk goes whole or not at all");
        window.trim(400, u64::MAX);
        assert_eq!((window.len(), window.end()), (400, 800));
        assert_eq!(read(&window, window.start()).len(), 400);
    }

    #[test]
    fn batches_begin_and_end_anywhere() {
        let mut window = Window::default();
        for i in 0..10u8 {
            window.push(Bytes::from(vec![i; 10]));
        }
        window.trim(0, 20);
        let lengths = |offset, most| -> Vec<usize> {
            window.batch(offset, most).iter().map(Bytes::len).collect()
        };
        assert_eq!(lengths(25, 6), [5, 1]);
        assert_eq!(lengths(25, 15), [5, 10]);
        assert_eq!(lengths(95, 1000), [5]);
        assert!(lengths(100, 1000).is_empty());
    }
}
