//! Which slot is where. Pure bookkeeping; the network keeps it behind a lock that is never held across a wait.
//!
//! ```text
//!            reserve          built           take            begin_release      released
//!  (absent) ────────▶ Making ───────▶ Ready ────────▶ InUse ────────────▶ Releasing ─────────▶ (absent)
//!  Leftover (found at the start) ── adopt ──▶ Making ──▶ Ready ──▶ InUse          │ failed
//!     ▲  └───────── begin_release ──▶ Releasing ◀───────────────────────────────  │
//!     └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A number that was released is not given again before all others were: addresses that the host's table of
//! connections still knows are not soon someone else's.

use std::collections::{BTreeMap, BTreeSet};

use crate::slot::SlotId;

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On the host from an earlier process, or after a removal that failed.
    Leftover,
    /// A task works on it.
    Making,
    /// Made, and used by nobody.
    Ready,
    /// A machine has it.
    InUse,
    /// A task removes it.
    Releasing,
}

/// What a release finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The caller removes it now.
    Begun,
    /// Someone else removes it already.
    Elsewhere,
    /// It is not there.
    Absent,
    /// It is being made.
    Making,
}

/// All slots of an instance.
#[derive(Debug)]
pub(crate) struct Ledger {
    places: BTreeMap<SlotId, Place>,
    next: SlotId,
}

impl Ledger {
    /// `leftovers` are on the host already.
    pub(crate) fn new(leftovers: BTreeSet<SlotId>) -> Self {
        let first = SlotId::try_from(SlotId::FIRST).expect("the first slot is a slot");
        let next = leftovers.last().map_or(first, |last| last.next());
        let places = leftovers
            .into_iter()
            .map(|slot| (slot, Place::Leftover))
            .collect();
        Self { places, next }
    }

    /// Takes a number to make a slot of; none when all are in use.
    pub(crate) fn reserve(&mut self) -> Option<SlotId> {
        let all = usize::from(SlotId::LAST - SlotId::FIRST) + 1;
        let slot = std::iter::successors(Some(self.next), |slot| Some(slot.next()))
            .take(all)
            .find(|slot| !self.places.contains_key(slot))?;
        self.next = slot.next();
        self.places.insert(slot, Place::Making);
        Some(slot)
    }

    /// Takes a leftover to work with it; false when it is not one.
    pub(crate) fn adopt(&mut self, slot: SlotId) -> bool {
        let leftover = self.places.get(&slot) == Some(&Place::Leftover);
        if leftover {
            self.places.insert(slot, Place::Making);
        }
        leftover
    }

    /// Whether anything is known of it.
    pub(crate) fn knows(&self, slot: SlotId) -> bool {
        self.places.contains_key(&slot)
    }

    /// A slot being made is ready.
    pub(crate) fn built(&mut self, slot: SlotId) {
        self.places.insert(slot, Place::Ready);
    }

    /// The making failed and was undone.
    pub(crate) fn undone(&mut self, slot: SlotId) {
        self.places.remove(&slot);
    }

    /// What is there of it is to be removed some day: a removal or an adoption failed.
    pub(crate) fn left(&mut self, slot: SlotId) {
        self.places.insert(slot, Place::Leftover);
    }

    /// A machine gets a ready slot.
    pub(crate) fn take(&mut self, slot: SlotId) {
        self.places.insert(slot, Place::InUse);
    }

    /// Someone wants to remove a slot.
    pub(crate) fn begin_release(&mut self, slot: SlotId) -> Release {
        match self.places.get(&slot) {
            Some(Place::Leftover | Place::Ready | Place::InUse) => {
                self.places.insert(slot, Place::Releasing);
                Release::Begun
            }
            Some(Place::Releasing) => Release::Elsewhere,
            Some(Place::Making) => Release::Making,
            None => Release::Absent,
        }
    }

    /// It is removed.
    pub(crate) fn released(&mut self, slot: SlotId) {
        self.places.remove(&slot);
    }

    /// Leftovers that are not in `keep`.
    pub(crate) fn leftovers(&self, keep: &[SlotId]) -> Vec<SlotId> {
        let leftover = |(slot, place): (&SlotId, &Place)| {
            (*place == Place::Leftover && !keep.contains(slot)).then_some(*slot)
        };
        self.places.iter().filter_map(leftover).collect()
    }

    /// Whether there is no slot at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> SlotId {
        number.try_into().expect("in range")
    }

    #[test]
    fn a_number_comes_back_only_after_all_others() {
        let mut ledger = Ledger::new([slot(7)].into());
        let first = ledger.reserve().expect("free");
        assert_eq!(first, slot(8), "behind what is left");
        ledger.built(first);
        ledger.take(first);
        assert_eq!(ledger.begin_release(first), Release::Begun);
        assert_eq!(ledger.begin_release(first), Release::Elsewhere);
        ledger.released(first);
        assert_eq!(ledger.begin_release(first), Release::Absent);
        let mut given = BTreeSet::new();
        for _ in 0..4092 {
            assert!(
                given.insert(ledger.reserve().expect("free")),
                "a number twice"
            );
        }
        assert_eq!(ledger.reserve(), None, "all are in use");
        assert!(!given.contains(&slot(7)));
        assert!(given.contains(&first));
    }

    #[test]
    fn only_leftovers_are_adopted_and_swept() {
        let mut ledger = Ledger::new([slot(3), slot(4)].into());
        let made = ledger.reserve().expect("free");
        assert!(!ledger.adopt(made));
        assert!(!ledger.adopt(slot(9)));
        assert!(ledger.adopt(slot(3)));
        assert!(!ledger.adopt(slot(3)));
        assert_eq!(ledger.begin_release(slot(3)), Release::Making);
        assert_eq!(ledger.leftovers(&[]), [slot(4)]);
        assert_eq!(ledger.leftovers(&[slot(4)]), []);
    }
}
