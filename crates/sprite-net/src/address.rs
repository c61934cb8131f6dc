//! Addresses: what a machine sees, what it may not reach, and which piece of the host's address space is ours.
//!
//! Everything here is pure.

use std::fmt;
use std::net::Ipv4Addr;

use sprite_types::InstanceId;

use crate::route::Mac;
use crate::slot::SlotId;

/// The machine's own address, the same in every machine. Source: behaviour reference §4.4.
pub const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The machine's gateway and name server. Source: behaviour reference §4.4.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Bits of the network that both are in.
pub const GUEST_PREFIX: u8 = 24;

/// The machine's hardware address, the same in every machine: a memory snapshot holds it.
pub(crate) const GUEST_MAC: Mac = [0x02, 0x53, 0x50, 0, 0, 1];
/// The gateway's hardware address, for the same reason.
pub(crate) const GATEWAY_MAC: Mac = [0x02, 0x53, 0x50, 0, 0, 2];
/// Where a virtual machine holds [`GUEST_MAC`] itself, the two ports of its bridge have these.
pub(crate) const WIRE_MAC: Mac = [0x02, 0x53, 0x50, 0, 2, 1];
pub(crate) const TAP_MAC: Mac = [0x02, 0x53, 0x50, 0, 2, 2];
/// The router's end of the link to the host, and the host's end: links of two ends, so all may be equal.
pub(crate) const UP_MAC: Mac = [0x02, 0x53, 0x50, 0, 1, 1];
pub(crate) const HOST_MAC: Mac = [0x02, 0x53, 0x50, 0, 1, 2];

/// A range of IPv4 addresses: a first address and how many leading bits are fixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// All of IPv4.
    pub(crate) const EVERYTHING: Self = Self {
        first: 0,
        prefix: 0,
    };

    /// The subnet with `prefix` bits (0 to 32) that holds `ip`.
    pub(crate) const fn new(ip: Ipv4Addr, prefix: u8) -> Self {
        let mask = mask(prefix);
        Self {
            first: ip.to_bits() & mask,
            prefix,
        }
    }

    /// Only this address.
    pub(crate) const fn host(ip: Ipv4Addr) -> Self {
        Self::new(ip, 32)
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first)
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first | !mask(self.prefix))
    }

    /// How many leading bits are fixed.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `ip` is in it.
    #[must_use]
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & mask(self.prefix) == self.first
    }

    /// Whether any address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let bits = mask(self.prefix.min(other.prefix));
        self.first & bits == other.first & bits
    }

    /// The outside address of a slot.
    pub(crate) fn slot(self, slot: SlotId) -> Ipv4Addr {
        Ipv4Addr::from(self.first + u32::from(slot.number()))
    }

    /// The slot that has this outside address.
    pub(crate) fn slot_of(self, outside: Ipv4Addr) -> Option<SlotId> {
        let number = outside.to_bits().checked_sub(self.first)?;
        SlotId::try_from(u16::try_from(number).ok()?).ok()
    }

    /// The next hop of every slot: an address that no interface has, only a hardware address (so it can be
    /// neither asked for nor reached).
    pub(crate) fn next_hop(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 {
        0
    } else {
        u32::MAX << (32 - prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What no machine reaches, in ascending order and without overlaps.
///
/// Source: IANA IPv4 Special-Purpose Address Registry (RFC 6890): everything that is not globally reachable,
/// with 100.100.100.200 and 169.254.169.254 in it, the metadata services of most clouds; and 168.63.129.16,
/// the one metadata service (Azure) at a public address. The three documentation networks (192.0.2.0/24,
/// 198.51.100.0/24, 203.0.113.0/24) are left open: nobody routes them except laboratories, which mean it.
pub(crate) const CLOSED: [Subnet; 11] = [
    Subnet::new(Ipv4Addr::new(0, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Subnet::new(Ipv4Addr::new(127, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(168, 63, 129, 16), 32),
    Subnet::new(Ipv4Addr::new(169, 254, 0, 0), 16),
    Subnet::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Subnet::new(Ipv4Addr::new(192, 0, 0, 0), 24),
    Subnet::new(Ipv4Addr::new(192, 168, 0, 0), 16),
    Subnet::new(Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast, the reserved class E and the broadcast address: 224.0.0.0/4 and 240.0.0.0/4.
    Subnet::new(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Whether a machine may send to any address of `subnet`.
pub(crate) fn reachable(subnet: Subnet) -> bool {
    !CLOSED
        .iter()
        .any(|closed| closed.prefix <= subnet.prefix && closed.overlaps(subnet))
}

/// Bits of the piece of address space that one instance takes: 4,096 addresses.
const INSTANCE_PREFIX: u8 = 20;
const _: () = assert!(1 << (32 - INSTANCE_PREFIX) > SlotId::LAST as u32 + 1);

/// Where an instance's addresses may come from, best first: providers' space (rarely used inside a site), then
/// the private ranges. All of it is closed to machines, so no machine reaches another one's outside address.
const CANDIDATES: [Subnet; 3] = [
    Subnet::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Subnet::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 8),
];

/// A default route cut in pieces, as some VPNs do, is not use of an address.
const COARSEST_USE: u8 = 8;

/// The instance as a number below 2^30: five bits for each character. It is the metric of the instance's
/// claim, and where it begins to look for a free piece.
pub(crate) fn instance_number(instance: &InstanceId) -> u32 {
    instance.as_str().bytes().fold(0, |number, byte| {
        let digit = if byte.is_ascii_digit() {
            byte - b'2' + 26
        } else {
            byte - b'a'
        };
        (number << 5) | u32::from(digit)
    })
}

/// The first piece of address space that meets nothing in `used`; the same for the same instance and uses.
pub(crate) fn choose_subnet(instance: &InstanceId, used: &[Subnet]) -> Option<Subnet> {
    let own = Subnet::new(GUEST_IP, GUEST_PREFIX);
    let free = |piece: &Subnet| {
        !piece.overlaps(own)
            && !used
                .iter()
                .any(|used| used.prefix >= COARSEST_USE && used.overlaps(*piece))
    };
    CANDIDATES.iter().find_map(|candidate| {
        let pieces = 1 << (INSTANCE_PREFIX - candidate.prefix);
        let start = instance_number(instance) % pieces;
        (0..pieces)
            .map(|step| (start + step) % pieces)
            .map(|n| Subnet {
                first: candidate.first + (n << (32 - INSTANCE_PREFIX)),
                prefix: INSTANCE_PREFIX,
            })
            .find(free)
    })
}

/// The instance's piece, told from one of its slots.
pub(crate) fn subnet_of_slot(slot: SlotId, outside: Ipv4Addr) -> Option<Subnet> {
    let subnet = Subnet::new(outside, INSTANCE_PREFIX);
    (subnet.slot(slot) == outside).then_some(subnet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(text: &str) -> InstanceId {
        text.parse().expect("six characters of base 32")
    }

    fn subnet(text: &str) -> Subnet {
        let (ip, prefix) = text.split_once('/').expect("a slash");
        Subnet::new(
            ip.parse().expect("an address"),
            prefix.parse().expect("a number"),
        )
    }

    #[test]
    fn the_same_instance_gets_the_same_piece_and_another_one_another() {
        let first = choose_subnet(&instance("abcdef"), &[]).expect("free");
        assert_eq!(choose_subnet(&instance("abcdef"), &[]), Some(first));
        assert_ne!(choose_subnet(&instance("abcdeg"), &[]), Some(first));
        assert!(CANDIDATES[0].overlaps(first));
    }

    #[test]
    fn a_piece_in_use_is_passed_over() {
        let id = instance("zzzzzz");
        let first = choose_subnet(&id, &[]).expect("free");
        let second = choose_subnet(&id, &[Subnet::host(first.last())]).expect("free");
        assert!(!second.overlaps(first));
        // All providers' space is in use (a VPN): the next candidate.
        let third = choose_subnet(&id, &[subnet("100.64.0.0/10")]).expect("free");
        assert!(CANDIDATES[1].overlaps(third));
        let all = ["100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8"].map(subnet);
        assert_eq!(choose_subnet(&id, &all), None);
        // Routes as coarse as a default route are not uses.
        assert_eq!(
            choose_subnet(&id, &[subnet("0.0.0.0/1"), subnet("64.0.0.0/2")]),
            Some(first)
        );
    }

    #[test]
    fn metadata_and_private_addresses_are_closed_and_the_rest_is_open() {
        let closed = [
            "0.0.0.0",
            "10.0.0.2",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ];
        for ip in closed {
            assert!(
                !reachable(Subnet::host(ip.parse().expect("an address"))),
                "{ip}"
            );
        }
        for ip in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "168.63.129.15",
            "172.32.0.0",
            "192.0.2.1",
            "203.0.113.80",
            "223.255.255.255",
        ] {
            assert!(
                reachable(Subnet::host(ip.parse().expect("an address"))),
                "{ip}"
            );
        }
        assert!(reachable(Subnet::EVERYTHING));
        assert!(
            CLOSED
                .windows(2)
                .all(|pair| pair[0].last() < pair[1].first())
        );
    }

    proptest! {
        #[test]
        fn a_slot_tells_its_instances_piece(number in 0u32..(1 << 30), slot in SlotId::FIRST..=SlotId::LAST) {
            let letters = b"abcdefghijklmnopqrstuvwxyz234567";
            let text: String = (0..6)
                .map(|i| char::from(letters[(number >> (25 - 5 * i)) as usize & 31]))
                .collect();
            let id = instance(&text);
            prop_assert_eq!(instance_number(&id), number);
            let piece = choose_subnet(&id, &[]).expect("free");
            let slot = SlotId::try_from(slot).expect("in range");
            let outside = piece.slot(slot);
            prop_assert!(piece.contains(outside));
            prop_assert!(outside != piece.next_hop() && outside != piece.last());
            prop_assert_eq!(subnet_of_slot(slot, outside), Some(piece));
        }

        #[test]
        fn overlap_means_a_common_address(a: u32, p in 0u8..=32, b: u32, q in 0u8..=32) {
            let (x, y) = (Subnet::new(a.into(), p), Subnet::new(b.into(), q));
            let common = x.contains(y.first()) || y.contains(x.first());
            prop_assert_eq!(x.overlaps(y), common);
            prop_assert_eq!(y.overlaps(x), common);
        }
    }
}
