//! A slot: the place on the host's network that one machine has.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a slot within its instance, [`SlotId::FIRST`] to [`SlotId::LAST`]. Part of the names of its
/// namespaces and of its interface, and the low bits of its outside address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct SlotId(u16);

/// A number or text that no slot has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a slot: it must be a number from {} to {}",
    SlotId::FIRST,
    SlotId::LAST
)]
pub struct ParseSlotError;

impl SlotId {
    /// The lowest: 0 is the subnet itself, 1 the next hop of all.
    pub const FIRST: u16 = 2;
    /// The highest: below it all of a /20 except its broadcast address.
    pub const LAST: u16 = 4094;

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// The slot after this one, in a circle.
    pub(crate) fn next(self) -> Self {
        if self.0 == Self::LAST {
            Self(Self::FIRST)
        } else {
            Self(self.0 + 1)
        }
    }
}

impl TryFrom<u16> for SlotId {
    type Error = ParseSlotError;

    fn try_from(number: u16) -> Result<Self, ParseSlotError> {
        if (Self::FIRST..=Self::LAST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseSlotError)
        }
    }
}

impl From<SlotId> for u16 {
    fn from(slot: SlotId) -> u16 {
        slot.0
    }
}

impl FromStr for SlotId {
    type Err = ParseSlotError;

    fn from_str(text: &str) -> Result<Self, ParseSlotError> {
        // Exactly what is written by Display: no sign, no leading zero, or two names would mean one slot.
        let slot = text
            .parse::<u16>()
            .map_err(|_| ParseSlotError)
            .and_then(Self::try_from)?;
        if slot.to_string() == text {
            Ok(slot)
        } else {
            Err(ParseSlotError)
        }
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a machine holds on to its slot. The same for all slots of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// The machine's processes stand in the guest namespace, where `eth0` has the machine's address.
    Interface,
    /// A virtual machine has the address; its monitor stands in the guest namespace and holds the persistent
    /// tap there, whose user [`Network::assign_tap`](crate::Network::assign_tap) says.
    Tap,
}

/// What a driver needs to know about a slot. Plain data: dropping it frees nothing, that is what
/// [`Network::release`](crate::Network::release) is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its number: keep it with the machine, so that it can be adopted after a restart.
    pub id: SlotId,
    /// A file that stands for the machine's namespace: open it and `setns`. Nothing is in it but `lo` and
    /// `eth0`, or the tap and what connects it.
    pub guest_netns: PathBuf,
    /// What is in it.
    pub attachment: Attachment,
    /// The machine's hardware address.
    pub guest_mac: [u8; 6],
    /// The machine's address.
    pub guest_ip: Ipv4Addr,
    /// Bits of the machine's network.
    pub guest_prefix: u8,
    /// Where its default route goes.
    pub gateway: Ipv4Addr,
    /// Its name server (UDP and TCP port 53).
    pub nameserver: Ipv4Addr,
    /// The address that it has between its router and the host; no one else on the host has it.
    pub outside_ip: Ipv4Addr,
}

/// What went through a slot since it was made: packets between its machine and the outside, with all their headers.
/// Names that it looked up and what its walls refused are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// What came to the machine, in bytes.
    pub bytes_in: u64,
    /// What the machine sent, in bytes.
    pub bytes_out: u64,
}

impl Traffic {
    /// What of it came after an earlier look at the same slot.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_since_an_earlier_look_is_never_less_than_nothing() {
        let of = |bytes_in, bytes_out| Traffic {
            bytes_in,
            bytes_out,
        };
        assert_eq!(of(10, 7).since(of(4, 7)), of(6, 0));
        // A slot that was made anew.
        assert_eq!(of(1, 2).since(of(4, 7)), of(0, 0));
    }

    #[test]
    fn slots_are_numbers_in_range() {
        assert_eq!("2".parse::<SlotId>().map(SlotId::number), Ok(2));
        assert_eq!(
            "4094"
                .parse::<SlotId>()
                .map(SlotId::next)
                .map(SlotId::number),
            Ok(2)
        );
        for bad in ["", "1", "4095", "02", "+2", "-2", "2 ", "x", "99999999999"] {
            assert!(bad.parse::<SlotId>().is_err(), "{bad:?}");
        }
        assert!(serde_roundtrip(1).is_err());
        assert!(serde_roundtrip(2).is_ok());
    }

    fn serde_roundtrip(number: u16) -> Result<SlotId, ParseSlotError> {
        number.try_into()
    }
}
