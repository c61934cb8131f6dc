//! What is under way at each sprite's URL: how much at once, and the connections that wait for another request.
//!
//! # Which connections are used again
//! One on which a request without a body, that may be sent twice, was answered to the end, and nothing came behind the
//! answer; in the memory in which it was opened; for at most [`IDLE_FOR`]. Everything else has a connection of its own.
//! While one waits it holds nothing and nothing on it counts as use; when the sprite falls asleep, those that wait end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_host::{Awake, Reusable};
use sprite_types::SpriteId;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::program::Program;
use crate::connection::Connection;

/// How long a connection waits for its next request: less than the 5 s after which widespread servers end it.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// Most connections of one sprite that wait.
const MOST_IDLE: usize = 32;
/// Most connections of all sprites that wait: each costs the server and the machine a few KiB.
const MOST_IDLE_IN_ALL: usize = 1024;
/// How long a connection may take from the end of an answer until it can be used again.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// All sprites whose URLs are in use. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    by_sprite: HashMap<SpriteId, Place>,
    /// Connections that wait, of all.
    idle: usize,
}

#[derive(Default)]
struct Place {
    /// Requests and switched connections that are under way.
    open: usize,
    /// In the order in which they began to wait.
    idle: Vec<Idle>,
    /// Whether somebody ends those that have waited for too long.
    swept: bool,
}

struct Idle {
    program: Program,
    until: Instant,
}

/// The right to use a sprite's URL, of which there are so many. Dropped, it is another's.
pub(super) struct Slot {
    places: Places,
    sprite: SpriteId,
}

impl Slot {
    /// Has a connection wait for another request, whose answer has come to its end.
    pub(super) fn give(&self, program: Program, connection: &Connection) {
        self.places.give(self.sprite, program, connection);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.places.table();
        if let Some(place) = table.by_sprite.get_mut(&self.sprite) {
            place.open -= 1;
        }
        table.forget_if_empty(self.sprite);
    }
}

impl Table {
    fn forget_if_empty(&mut self, sprite: SpriteId) {
        let place = self.by_sprite.get(&sprite);
        if place.is_some_and(|place| place.open == 0 && place.idle.is_empty() && !place.swept) {
            self.by_sprite.remove(&sprite);
        }
    }
}

impl Places {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding it, and nothing waits.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request, unless `most` are under way at that sprite.
    pub(super) fn enter(&self, sprite: SpriteId, most: usize) -> Option<Slot> {
        let mut table = self.table();
        let place = table.by_sprite.entry(sprite).or_default();
        if place.open >= most {
            return None;
        }
        place.open += 1;
        Some(Slot {
            places: self.clone(),
            sprite,
        })
    }

    /// A connection to that port which waits, for whoever holds the sprite. Those that are good for nothing end.
    pub(super) fn take(&self, sprite: SpriteId, port: u16, awake: &Awake) -> Option<Program> {
        let mut table = self.table();
        let now = Instant::now();
        let place = table.by_sprite.get_mut(&sprite)?;
        let before = place.idle.len();
        let mut found = None;
        while found.is_none()
            && let Some(Idle { program, until }) = place.idle.pop()
        {
            let good = program.port == port && now < until && program.resume(awake);
            found = good.then_some(program);
        }
        let taken = before - place.idle.len();
        table.idle -= taken;
        found
    }

    /// Has a connection wait for another request, whose answer has come to its end.
    fn give(&self, sprite: SpriteId, mut program: Program, connection: &Connection) {
        program.rest();
        // None: the server has ended.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if program.is_ready() {
            return self.put(sprite, program, connection, &runtime);
        }
        // It has not been told yet that all is read.
        let (places, connection) = (self.clone(), connection.clone());
        let tasks = connection.tasks.clone();
        let waits = async move {
            if let Ok(true) = timeout(READY_WITHIN, program.ready()).await {
                places.put(sprite, program, &connection, &Handle::current());
            }
        };
        tasks.spawn_on(waits, &runtime);
    }

    fn put(&self, sprite: SpriteId, program: Program, connection: &Connection, runtime: &Handle) {
        let mut table = self.table();
        if table.idle >= MOST_IDLE_IN_ALL {
            return;
        }
        let place = table.by_sprite.entry(sprite).or_default();
        if place.idle.len() >= MOST_IDLE {
            return;
        }
        let memory = program.memory().clone();
        let until = Instant::now() + IDLE_FOR;
        place.idle.push(Idle { program, until });
        let swept = std::mem::replace(&mut place.swept, true);
        table.idle += 1;
        drop(table);
        if !swept {
            let sweep = sweep(self.clone(), sprite, memory, connection.stop.clone());
            connection.tasks.spawn_on(sweep, runtime);
        }
    }

    /// Ends those of a sprite that have waited for long enough. When the next has; `None` if there is none.
    fn expire(&self, sprite: SpriteId, now: Instant) -> Option<Instant> {
        let mut table = self.table();
        let place = table.by_sprite.get_mut(&sprite)?;
        let expired = place.idle.partition_point(|idle| idle.until <= now);
        place.idle.drain(..expired);
        let next = place.idle.first().map(|idle| idle.until);
        place.swept = next.is_some();
        table.idle -= expired;
        table.forget_if_empty(sprite);
        next
    }

    /// Ends all of a sprite that wait.
    fn clear(&self, sprite: SpriteId) {
        let mut table = self.table();
        if let Some(place) = table.by_sprite.get_mut(&sprite) {
            place.swept = false;
            let ended = std::mem::take(&mut place.idle);
            table.idle -= ended.len();
        }
        table.forget_if_empty(sprite);
    }
}

/// Ends connections of a sprite that wait, each at its time, and all when the sprite falls asleep.
async fn sweep(places: Places, sprite: SpriteId, memory: Reusable, stop: CancellationToken) {
    while let Some(next) = places.expire(sprite, Instant::now()) {
        tokio::select! {
            () = sleep_until(next) => {}
            () = memory.until_asleep() => return places.clear(sprite),
            () = stop.cancelled() => return places.clear(sprite),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_under_way_and_nothing_is_kept_of_those_that_ended() {
        let places = Places::default();
        let (one, other) = (SpriteId::random(), SpriteId::random());
        let first = places.enter(one, 2).expect("room");
        let second = places.enter(one, 2).expect("room");
        assert!(places.enter(one, 2).is_none());
        let elsewhere = places.enter(other, 2).expect("room of its own");
        drop(first);
        let third = places.enter(one, 2).expect("room again");
        drop((second, third, elsewhere));
        assert!(places.table().by_sprite.is_empty());
    }
}
