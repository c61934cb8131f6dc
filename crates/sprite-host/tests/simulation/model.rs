//! What the clients of a host may count on, and what of it was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_host::Hold;
use sprite_types::{CheckpointId, SpriteId};

/// What somebody was promised of a sprite.
#[derive(Debug, Default)]
struct Promised {
    /// Counts its boots: a hold is of the memory that it was given in.
    life: u64,
    /// Holds that clients have in their hands.
    calls: u32,
    sessions: u32,
    connections: u32,
    /// Whether open connections alone do not keep it awake.
    traffic: bool,
    /// Somebody asks for it to sleep.
    naps: u32,
    /// Somebody asks for a restart or its end, or did since it was last awake.
    drops: u32,
    dropped: bool,
    /// Its memory is on disk, and that is durable.
    kept: bool,
    /// Checkpoints that somebody was told are made, and nobody asked to delete.
    checkpoints: BTreeSet<CheckpointId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Model(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The host ends whatever holds its sprites.
    closing: bool,
    sprites: BTreeMap<SpriteId, Promised>,
    broken: BTreeSet<String>,
}

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn broken(&self, what: String) {
        self.state().broken.insert(what);
    }

    /// What was broken so far.
    pub fn verdict(&self) -> Vec<String> {
        self.state().broken.iter().cloned().collect()
    }

    pub fn closing(&self, closing: bool) {
        self.state().closing = closing;
    }

    /// Whoever held anything is gone: the host was killed.
    pub fn nobody_holds(&self) {
        for promised in self.state().sprites.values_mut() {
            let kept = promised.kept;
            let dropped = promised.dropped || promised.drops > 0;
            let traffic = promised.traffic;
            let checkpoints = std::mem::take(&mut promised.checkpoints);
            *promised = Promised {
                checkpoints,
                life: promised.life + 1,
                kept,
                dropped,
                traffic,
                ..Promised::default()
            };
        }
    }

    fn with(&self, sprite: SpriteId, change: impl FnOnce(&mut Promised)) {
        change(self.state().sprites.entry(sprite).or_default());
    }

    /// In which memory it is now.
    pub fn life(&self, sprite: SpriteId) -> u64 {
        self.state().sprites.entry(sprite).or_default().life
    }

    /// A machine boots: whoever held it before holds nothing any more.
    pub fn boots(&self, sprite: SpriteId) {
        self.with(sprite, |promised| {
            promised.life += 1;
            (promised.calls, promised.sessions, promised.connections) = (0, 0, 0);
        });
    }

    /// A client holds it, or does not any more.
    pub fn holds(&self, sprite: SpriteId, life: u64, hold: Hold, more: bool) {
        self.with(sprite, |promised| {
            if promised.life != life {
                return;
            }
            let count = match hold {
                Hold::Call => &mut promised.calls,
                Hold::Session => &mut promised.sessions,
                Hold::Connection | Hold::Presence => &mut promised.connections,
            };
            *count = if more {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        });
    }

    pub fn traffic(&self, sprite: SpriteId, traffic: bool) {
        self.with(sprite, |promised| promised.traffic = traffic);
    }

    pub fn nap(&self, sprite: SpriteId, more: bool) {
        self.with(sprite, |promised| {
            let naps = promised.naps;
            promised.naps = if more {
                naps + 1
            } else {
                naps.saturating_sub(1)
            };
        });
    }

    /// Somebody begins, or ceases, to ask for what drops memory.
    pub fn drop_asked(&self, sprite: SpriteId, more: bool) {
        self.with(sprite, |promised| {
            let drops = promised.drops;
            promised.drops = if more {
                drops + 1
            } else {
                drops.saturating_sub(1)
            };
            promised.dropped = true;
        });
    }

    /// Somebody was told that it is awake.
    pub fn awake(&self, sprite: SpriteId) {
        self.with(sprite, |promised| promised.dropped = promised.drops > 0);
    }

    /// Its memory is durable on disk, or used or gone by right.
    pub fn kept(&self, sprite: SpriteId, kept: bool) {
        self.with(sprite, |promised| promised.kept = kept);
    }

    /// Somebody was told that it is made, or asks to delete it.
    pub fn checkpoint(&self, sprite: SpriteId, id: CheckpointId, made: bool) {
        self.with(sprite, |promised| {
            if made {
                promised.checkpoints.insert(id);
            } else {
                promised.checkpoints.remove(&id);
            }
        });
    }

    /// The checkpoints that are promised.
    pub fn checkpoints(&self, sprite: SpriteId) -> BTreeSet<CheckpointId> {
        let mut state = self.state();
        state.sprites.entry(sprite).or_default().checkpoints.clone()
    }

    /// Its machine is being stopped in its tracks.
    pub fn falls_asleep(&self, sprite: SpriteId, name: &str) {
        let mut state = self.state();
        if state.closing {
            return;
        }
        let promised = state.sprites.entry(sprite).or_default();
        let cause = if promised.calls > 0 {
            "a call is in flight"
        } else if promised.naps > 0 {
            return;
        } else if promised.sessions > 0 {
            "somebody is attached"
        } else if promised.connections > 0 && !promised.traffic {
            "a connection is open"
        } else {
            return;
        };
        let text = format!("{name} is put to sleep though {cause}");
        state.broken.insert(text);
    }

    /// Its memory is not used, and goes.
    pub fn memory_goes(&self, sprite: SpriteId, name: &str, how: &str) {
        let mut state = self.state();
        let promised = state.sprites.entry(sprite).or_default();
        if std::mem::take(&mut promised.kept) && promised.drops == 0 && !promised.dropped {
            let text = format!("{name} loses its memory, and nobody asked for that: {how}");
            state.broken.insert(text);
        }
    }
}
