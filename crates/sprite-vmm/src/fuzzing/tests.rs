//! The entries on stable Rust, in every run: the seeds, what was found once, and what chance makes of them.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::seeds::{self, Seed};
use super::{ENTRIES, Entry, quiet};

fn entry(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(entry, _)| *entry == name);
    found.expect("there is an entry of this name").1
}

#[test]
fn every_entry_has_seeds_and_survives_them() {
    quiet();
    for (name, entry) in ENTRIES {
        let seeds: Vec<Seed> = seeds::all()
            .into_iter()
            .filter(|seed| seed.entry == *name)
            .collect();
        assert!(!seeds.is_empty(), "{name} has seeds");
        for seed in seeds {
            entry(&seed.bytes);
        }
    }
}

/// One change of the kind that a fuzzer makes.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Append(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let some = || prop::collection::vec(any::<u8>(), 1..24);
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        2 => (any::<Index>(), some()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), 1..16_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        2 => some().prop_map(Change::Append),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match change {
            Change::Replace(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Change::Insert(at, new) => {
                let at = place(at);
                drop(bytes.splice(at..at, new.iter().copied()));
            }
            Change::Remove(at, count) => {
                let at = place(at);
                let end = (at + count).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            Change::Append(new) => bytes.extend(new),
        }
    }
    bytes
}

/// A seed of the entry, or two one behind the other, changed here and there.
fn near_a_seed(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds::all()
        .into_iter()
        .filter(|seed| seed.entry == name)
        .map(|seed| seed.bytes)
        .collect();
    let some = prop::collection::vec(select(seeds), 1..4).prop_map(|seeds| seeds.concat());
    (some, prop::collection::vec(change(), 0..12))
        .prop_map(|(bytes, changes)| changed(bytes, &changes))
}

/// The same cases in every run: what is found is found again. To search is the fuzzer's business.
fn seeded() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(51),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

macro_rules! survives {
    ($($test:ident: $name:literal,)*) => {
        proptest! {
            #![proptest_config(seeded())]
            $(
                #[test]
                fn $test(bytes in prop_oneof![
                    3 => near_a_seed($name),
                    1 => prop::collection::vec(any::<u8>(), 0..600),
                ]) {
                    quiet();
                    entry($name)(&bytes);
                }
            )*
        }
    };
}

survives! {
    no_chain_of_descriptors_is_too_strange: "chain",
    no_guest_stops_its_disk: "block",
    no_guest_stops_its_network_card: "net",
    no_guest_stops_its_socket: "vsock",
    no_client_stops_the_control_socket: "control",
    no_file_stops_a_load: "snapshot",
    no_output_stops_the_console: "console",
}
