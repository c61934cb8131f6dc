//! Guests that follow no rules at all.

use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::block::Block;
use super::chain::walk;
use super::driver::{Buffer, Driver, restricted};
use super::rng::Rng;
use super::vsock::Vsock;
use super::{TransportState, VirtioDevice};
use crate::memory::anonymous;

const TABLE: u64 = 0x1000;
const MEMORY: u64 = 1 << 20;

/// A descriptor, near the borders more often than chance would have it.
fn any_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        0..MEMORY + 0x1000,
        MEMORY - 32..MEMORY + 32,
        Just(TABLE),
        any::<u64>(),
        u64::MAX - 32..=u64::MAX,
    ];
    let len = prop_oneof![0u32..5000, Just(16u32), Just(32u32), any::<u32>()];
    (address, len, 0u16..8, prop_oneof![0u16..20, any::<u16>()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_is_bounded_and_inside_whatever_its_descriptors_say(
        descriptors in prop::collection::vec(any_descriptor(), 16),
        head in prop_oneof![0u16..20, any::<u16>()],
        table in prop_oneof![9 => Just(TABLE), 1 => any::<u64>()],
    ) {
        let memory = anonymous(MEMORY).expect("1 MiB");
        for (index, &(address, len, flags, next)) in descriptors.iter().enumerate() {
            let mut bytes = Vec::new();
            bytes.extend(address.to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            let at = GuestAddress(TABLE + index as u64 * 16);
            memory.write_slice(&bytes, at).expect("the table is inside");
        }
        let Ok(chain) = walk(&memory, table, 16, head) else {
            return Ok(());
        };
        let mut total = 0;
        for buffers in [&chain.readable, &chain.writable] {
            prop_assert!(buffers.pieces().len() <= 16);
            let sum: usize = buffers.pieces().iter().map(|piece| piece.len()).sum();
            prop_assert_eq!(sum, buffers.len());
            total += sum;
        }
        prop_assert!(total <= 16 * usize::try_from(MEMORY).expect("1 MiB"));
    }

    #[test]
    fn buffers_cut_in_two_are_the_same_bytes(lens in prop::collection::vec(0u32..100, 1..8), at in 0usize..900) {
        let memory = anonymous(MEMORY).expect("1 MiB");
        let bytes: Vec<u8> = (0..1000u32).map(|number| number.to_le_bytes()[0]).collect();
        memory.write_slice(&bytes, GuestAddress(0x8000)).expect("inside");
        let mut address = 0x8000u64;
        for (index, &len) in lens.iter().enumerate() {
            let next = u16::try_from(index + 1).expect("few");
            let flags = u16::from(usize::from(next) < lens.len());
            let descriptor = (u128::from(next) << 112) | (u128::from(flags) << 96) | (u128::from(len) << 64) | u128::from(address);
            let place = GuestAddress(TABLE + index as u64 * 16);
            memory.write_slice(&descriptor.to_le_bytes(), place).expect("inside");
            address += u64::from(len);
        }
        let total: u32 = lens.iter().sum();
        let chain = walk(&memory, TABLE, 16, 0).expect("a chain as it should be");
        let Some((front, back)) = chain.readable.split(at) else {
            prop_assert!(at > total as usize);
            return Ok(());
        };
        let mut seen = vec![0; front.len() + back.len()];
        front.copy_to(&mut seen[..at]);
        back.copy_to(&mut seen[at..]);
        prop_assert_eq!(front.len(), at);
        prop_assert_eq!(&seen[..], &bytes[..total as usize]);
    }
}

/// Every kind of device that needs no rights, on files of the directory.
fn devices(directory: &TempDir, name: &str) -> Vec<Box<dyn VirtioDevice>> {
    let disk = directory.path().join("disk");
    let file = std::fs::File::create(&disk).expect("a file");
    file.set_len(1 << 20).expect("it grows");
    let drive = serde_json::json!({
        "drive_id": "disk", "path_on_host": disk, "is_root_device": false, "cache_type": "Writeback",
    });
    let socket = serde_json::json!({"guest_cid": 3, "uds_path": directory.path().join(name)});
    let drive = serde_json::from_value(drive).expect("a drive");
    let socket = serde_json::from_value(socket).expect("a socket");
    vec![
        Box::new(Rng::new().expect("a device")),
        Box::new(Block::open(&drive, &restricted()).expect("a disk")),
        Box::new(Vsock::start(&socket).expect("it listens")),
    ]
}

/// Works, or works after a reset.
fn still_works(driver: &mut Driver) {
    driver.initialize(0);
    match driver.read(0x08) {
        4 => {
            assert_eq!(driver.request(0, &[Buffer::Writable(8)]).written, 8);
        }
        2 => {
            let id = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let id = [Buffer::Readable(id.to_vec()), Buffer::Writable(21)];
            assert_eq!(&driver.request(0, &id).bytes[..4], b"disk");
        }
        19 => {
            driver.request(1, &[Buffer::Readable(vec![0; 44])]);
        }
        other => panic!("no device has the id {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_register_accesses_stops_a_device(
        accesses in prop::collection::vec(
            (prop_oneof![8 => (0u64..0x40).prop_map(|word| word * 4), 1 => 0u64..0x200, 1 => any::<u64>()],
             prop_oneof![0u32..16, any::<u32>()],
             0usize..9),
            0..80,
        ),
        set_up in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for device in devices(&directory, "v.sock") {
            let mut driver = Driver::attach(device);
            if set_up {
                driver.initialize(0);
            }
            for &(offset, value, len) in &accesses {
                if len < 8 {
                    driver.write(offset, value);
                }
                let mut data = vec![0; len];
                driver.transport.read(offset, &mut data);
            }
            still_works(&mut driver);
        }
    }

    #[test]
    fn no_content_of_the_rings_stops_a_device(
        descriptors in prop::collection::vec(any_descriptor(), 32),
        heads in prop::collection::vec(prop_oneof![0u16..40, any::<u16>()], 0..40),
        claim in prop::option::of(any::<u16>()),
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for device in devices(&directory, "v.sock") {
            let mut driver = Driver::start(device, 0);
            for queue in 0..driver.queues() {
                let table = driver.descriptors(queue);
                for (index, &(address, len, flags, next)) in descriptors.iter().enumerate() {
                    // Some of them inside the driver's memory of 64 MiB.
                    let descriptor = (address.wrapping_mul(64), len, flags, next);
                    driver.put_descriptor(table, u16::try_from(index).expect("few"), descriptor);
                }
                for &head in heads.iter().take(16) {
                    driver.offer_head(queue, head);
                }
                if let Some(claim) = claim {
                    driver.claim_available(queue, claim);
                }
                driver.notify(queue);
            }
            still_works(&mut driver);
        }
    }

    #[test]
    fn no_saved_state_stops_a_load(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0u64..300, any::<u64>()]), 0..4),
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let others = devices(&directory, "other.sock");
        for (device, other) in devices(&directory, "v.sock").into_iter().zip(others) {
            let driver = Driver::start(device, 0);
            let mut state = serde_json::to_value(driver.save()).expect("a state serializes");
            for (index, value) in &changes {
                change(&mut state, index, *value);
            }
            let Ok(state) = serde_json::from_value::<TransportState>(state) else {
                continue;
            };
            let mut loaded = Driver::attach_paused(other, Arc::clone(&driver.memory));
            if loaded.transport.restore(&state).is_ok() {
                loaded.devices.resume();
                still_works(&mut loaded);
            }
        }
    }
}

/// Puts a number in the place of one of the numbers.
fn change(state: &mut serde_json::Value, index: &prop::sample::Index, value: u64) {
    let mut places = Vec::new();
    numbers(state, &mut places);
    let place = index.index(places.len());
    *places.swap_remove(place) = value.into();
}

fn numbers<'v>(value: &'v mut serde_json::Value, places: &mut Vec<&'v mut serde_json::Value>) {
    match value {
        serde_json::Value::Number(_) => places.push(value),
        serde_json::Value::Array(values) => {
            values.iter_mut().for_each(|value| numbers(value, places))
        }
        serde_json::Value::Object(values) => {
            values.values_mut().for_each(|value| numbers(value, places));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => {}
    }
}
