//! What keeps a sprite awake.

use crate::event::{Connections, Policy};

/// What a hold is of. Source: behaviour reference §4.1, §11.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// A request that ends by itself: nobody is put to sleep in the midst of it, not even when asked.
    Call,
    /// A command that somebody is attached to, silent or not.
    Session,
    /// A connection to something in the sprite. Whether it counts while it is silent is the sprite's setting.
    Connection,
    /// Somebody who is there, and counts by what goes to and fro alone: a terminal, a watch.
    Presence,
}

/// How many holds there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holds {
    /// Of [`Hold::Call`].
    pub calls: u32,
    /// Of [`Hold::Session`].
    pub sessions: u32,
    /// Of [`Hold::Connection`].
    pub connections: u32,
    /// Of [`Hold::Presence`].
    pub presences: u32,
}

impl Holds {
    /// So many of one kind, and none of the others.
    #[must_use]
    pub fn of(hold: Hold, count: u32) -> Self {
        let mut holds = Self::default();
        *holds.count(hold) = count;
        holds
    }

    fn count(&mut self, hold: Hold) -> &mut u32 {
        match hold {
            Hold::Call => &mut self.calls,
            Hold::Session => &mut self.sessions,
            Hold::Connection => &mut self.connections,
            Hold::Presence => &mut self.presences,
        }
    }

    /// Whether there is none of any kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they keep a sprite with that policy awake for as long as they last.
    pub(crate) fn keep_awake(&self, policy: &Policy) -> bool {
        let connections = match policy.connections {
            Connections::Open => self.connections,
            Connections::Traffic => 0,
        };
        self.calls > 0 || self.sessions > 0 || connections > 0
    }

    /// These and those.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        self.each(more, u32::saturating_add)
    }

    /// These without those. More than there are cannot be let go; a mistake there must not keep a sprite awake for
    /// ever.
    #[must_use]
    pub fn without(self, fewer: Self) -> Self {
        self.each(fewer, u32::saturating_sub)
    }

    fn each(self, other: Self, both: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            calls: both(self.calls, other.calls),
            sessions: both(self.sessions, other.sessions),
            connections: both(self.connections, other.connections),
            presences: both(self.presences, other.presences),
        }
    }
}
