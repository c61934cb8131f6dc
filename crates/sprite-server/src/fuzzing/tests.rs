//! The entries on stable Rust, in every run: the seeds, and what chance makes of them.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::{ENTRIES, Entry, seeds};

fn entry(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(entry, _)| *entry == name);
    found.expect("there is an entry of this name").1
}

#[test]
fn every_entry_has_seeds_and_survives_them() {
    for (name, entry) in ENTRIES {
        let mut count = 0;
        for seed in seeds().iter().filter(|seed| seed.entry == *name) {
            entry(&seed.bytes);
            count += 1;
        }
        assert!(count > 0, "{name} has seeds");
    }
}

/// Seeds of the entry one behind the other, some of their bytes changed.
fn near_a_seed(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds()
        .into_iter()
        .filter(|seed| seed.entry == name)
        .map(|seed| seed.bytes)
        .collect();
    let some = prop::collection::vec(select(seeds), 1..4);
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..8);
    (some, changes).prop_map(|(seeds, changes)| {
        let mut bytes = seeds.concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn any_bytes(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => near_a_seed(name),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

/// The same cases in every run: what is found is found again. To search is the fuzzer's business.
fn seeded() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(65),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn no_frames_of_clients_are_too_strange(bytes in any_bytes("socket")) {
        entry("socket")(&bytes);
    }

    #[test]
    fn no_hello_is_too_strange(bytes in any_bytes("hello")) {
        entry("hello")(&bytes);
    }

    #[test]
    fn no_envelope_is_too_strange(bytes in any_bytes("envelope")) {
        entry("envelope")(&bytes);
    }

    #[test]
    fn no_query_is_too_strange(bytes in any_bytes("query")) {
        entry("query")(&bytes);
    }

    #[test]
    fn no_visitor_is_too_strange(bytes in any_bytes("visitor")) {
        entry("visitor")(&bytes);
    }

    #[test]
    fn no_head_is_too_strange(bytes in any_bytes("head")) {
        entry("head")(&bytes);
    }
}
