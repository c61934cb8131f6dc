//! The last that happened to a service, in order, for those who follow.
//!
//! Nobody who follows slows the service down: whoever is too slow is told how much was left out, which the log has.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_agent_api::services::{ServiceEvent, ServiceHappening};
use tokio::sync::watch;

/// Text that is kept of a service, and how many events, whichever is less.
const MOST_BYTES: usize = 256 << 10;
const MOST_EVENTS: usize = 2048;

#[derive(Debug, Default)]
struct Kept {
    /// Number of the first event that is kept.
    first: u64,
    events: VecDeque<ServiceEvent>,
    bytes: usize,
}

/// Events with numbers that go up by one.
#[derive(Debug)]
pub(super) struct Feed {
    kept: Mutex<Kept>,
    /// The next event's number.
    next: watch::Sender<u64>,
}

/// Somebody's place.
#[derive(Debug)]
pub(super) struct Place {
    at: u64,
    next: watch::Receiver<u64>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            next: watch::Sender::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events. `also` is done before anybody can take a place behind them.
    pub(super) fn push(&self, events: impl IntoIterator<Item = ServiceEvent>, also: impl FnOnce()) {
        let mut kept = self.kept();
        for event in events {
            kept.bytes += length(&event);
            kept.events.push_back(event);
            while kept.bytes > MOST_BYTES || kept.events.len() > MOST_EVENTS {
                let Some(oldest) = kept.events.pop_front() else {
                    break;
                };
                kept.bytes -= length(&oldest);
                kept.first += 1;
            }
        }
        also();
        let next = kept.first + kept.events.len() as u64;
        drop(kept);
        self.next.send_replace(next);
    }

    /// A place behind all that was pushed. `also` is done before anything more can be.
    pub(super) fn place(&self, also: impl FnOnce()) -> Place {
        let kept = self.kept();
        also();
        Place {
            at: kept.first + kept.events.len() as u64,
            next: self.next.subscribe(),
        }
    }

    /// The place of whoever wants all that is kept: of a service that has just been made.
    pub(super) fn beginning(&self) -> Place {
        Place {
            at: self.kept().first,
            next: self.next.subscribe(),
        }
    }

    /// What is next at a place, if there is anything.
    fn take(&self, place: &mut Place) -> Option<ServiceEvent> {
        let kept = self.kept();
        if place.at < kept.first {
            let count = kept.first - place.at;
            place.at = kept.first;
            return Some(super::event(ServiceHappening::Skipped { count }));
        }
        let index = usize::try_from(place.at - kept.first).ok()?;
        let event = kept.events.get(index)?.clone();
        place.at += 1;
        Some(event)
    }

    /// Waits for what is next at a place.
    ///
    /// Cancel safe: cancelled, nothing was taken.
    pub(super) async fn next(&self, place: &mut Place) -> ServiceEvent {
        loop {
            place.next.borrow_and_update();
            if let Some(event) = self.take(place) {
                return event;
            }
            if place.next.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// What counts of an event; each has some weight, so that empty lines are bounded too.
fn length(event: &ServiceEvent) -> usize {
    let text = match &event.what {
        ServiceHappening::Stdout { data } | ServiceHappening::Stderr { data } => data.len(),
        ServiceHappening::Error { message } => message.len(),
        ServiceHappening::Started { .. }
        | ServiceHappening::Exit { .. }
        | ServiceHappening::Stopping
        | ServiceHappening::Stopped { .. }
        | ServiceHappening::Skipped { .. } => 0,
    };
    text + size_of::<ServiceEvent>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> ServiceEvent {
        let data = text.to_owned();
        super::super::event(ServiceHappening::Stdout { data })
    }

    #[tokio::test]
    async fn what_comes_behind_a_place_is_told_in_order() {
        let feed = Feed::new();
        feed.push([line("before")], || {});
        let mut place = feed.place(|| {});
        feed.push([line("a"), line("b")], || {});
        for text in ["a", "b"] {
            assert_eq!(feed.next(&mut place).await.what, line(text).what);
        }
        assert_eq!(feed.take(&mut place), None);
    }

    #[tokio::test]
    async fn whoever_is_too_slow_is_told_how_much_is_missing() {
        let feed = Feed::new();
        let mut place = feed.place(|| {});
        let many = MOST_EVENTS as u64 + 7;
        for n in 0..many {
            feed.push([line(&n.to_string())], || {});
        }
        let mut told = 0;
        let first = feed.next(&mut place).await.what;
        let ServiceHappening::Skipped { count } = first else {
            panic!("{first:?}");
        };
        while let Some(event) = feed.take(&mut place) {
            assert_eq!(event.what, line(&(count + told).to_string()).what);
            told += 1;
        }
        assert_eq!(count + told, many);
    }

    #[test]
    fn a_storm_takes_no_more_memory_than_was_said() {
        let feed = Feed::new();
        for _ in 0..100 {
            feed.push([line(&"x".repeat(MOST_BYTES / 10))], || {});
            assert!(feed.kept().bytes <= MOST_BYTES);
        }
    }
}
