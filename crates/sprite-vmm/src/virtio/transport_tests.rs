use std::sync::Arc;

use super::driver::{Buffer, Driver, INDIRECT, NEXT, WRITE};
use super::rng::Rng;
use super::{F_EVENT_IDX, F_VERSION_1};

fn rng() -> Box<Rng> {
    Box::new(Rng::new().expect("a device"))
}

#[test]
fn a_driver_finds_a_modern_device_of_its_kind() {
    let driver = Driver::attach(rng());
    assert_eq!(driver.read(0x00), 0x7472_6976);
    assert_eq!(driver.read(0x04), 2);
    assert_eq!(driver.read(0x08), 4);
    assert_eq!(driver.read(0xb0), u32::MAX, "no shared memory");
    assert_eq!(driver.config(0, 8), [0; 8]);
}

#[test]
fn accesses_that_are_no_register_read_zeroes_and_change_nothing() {
    let driver = Driver::attach(rng());
    for offset in 0..0x100 {
        for len in [1, 2, 3, 8] {
            let mut data = vec![0xff; len];
            driver.transport.read(offset, &mut data);
            assert_eq!(data, vec![0; len]);
            driver.transport.write(offset, &data);
        }
    }
    driver.transport.write(u64::MAX, &[1; 4]);
    let mut data = [0xff; 4];
    driver.transport.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let driver = Driver::attach(rng());
    for features in [F_VERSION_1 | 1 << 13, F_EVENT_IDX] {
        driver.write(0x70, 0);
        driver.write(0x70, 3);
        for half in 0..2 {
            driver.write(0x24, half);
            driver.write(
                0x20,
                u32::try_from(features >> (32 * half) & 0xffff_ffff).expect("32 bits"),
            );
        }
        driver.write(0x70, 3 | 8);
        assert_eq!(driver.read(0x70), 3);
        driver.write(0x70, 3 | 8 | 4);
        assert_eq!(driver.read(0x70), 3, "not ready without features");
    }
}

#[test]
fn rings_outside_the_memory_ask_for_a_reset() {
    let driver = Driver::attach(rng());
    driver.write(0x70, 3);
    driver.write(0x24, 1);
    driver.write(0x20, 1);
    driver.write(0x70, 3 | 8);
    driver.write(0x38, 64);
    for offset in [0x84, 0x94, 0xa4] {
        driver.write(offset, 0xffff);
    }
    driver.write(0x44, 1);
    driver.write(0x70, 3 | 8 | 4);
    driver.wait_broken();
}

#[test]
fn a_reset_forgets_everything_and_the_device_works_again() {
    let mut driver = Driver::start(rng(), 0);
    driver.write(0x30, 0);
    assert_eq!(driver.read(0x44), 1);
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 0);
    assert_eq!(driver.read(0x44), 0);
    driver.initialize(0);
    assert_eq!(driver.request(0, &[Buffer::Writable(32)]).written, 32);
}

#[test]
fn an_interrupt_says_why_until_it_is_acknowledged() {
    let mut driver = Driver::start(rng(), 0);
    driver.offer(0, &[Buffer::Writable(8)]);
    driver.notify(0);
    assert_eq!(driver.interrupt(), 1);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn queue_registers_stand_still_while_the_device_works() {
    let mut driver = Driver::start(rng(), 0);
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    driver.write(0x80, 0);
    assert_eq!(driver.read(0x44), 1);
    assert_eq!(driver.request(0, &[Buffer::Writable(8)]).written, 8);
}

/// Each is a chain that ends the device's work, as (descriptors, head).
#[test]
fn chains_that_break_the_rules_ask_for_a_reset_and_a_reset_mends() {
    let inside = 0x200_0000;
    type Case = (&'static str, Vec<(u64, u32, u16, u16)>, u16);
    let cases: Vec<Case> = vec![
        ("head behind the table", vec![], 64),
        ("next behind the table", vec![(inside, 8, NEXT, 64)], 0),
        ("loop", vec![(inside, 8, NEXT, 0)], 0),
        (
            "longer loop",
            vec![(inside, 8, NEXT, 1), (inside, 8, NEXT, 0)],
            0,
        ),
        ("outside", vec![(1 << 40, 8, WRITE, 0)], 0),
        ("across the end", vec![((64 << 20) - 4, 8, WRITE, 0)], 0),
        ("wrapping around", vec![(u64::MAX - 3, 8, WRITE, 0)], 0),
        (
            "readable after writable",
            vec![(inside, 8, WRITE | NEXT, 1), (inside, 8, 0, 0)],
            0,
        ),
        (
            "readable after writable of no length",
            vec![(inside, 0, WRITE | NEXT, 1), (inside, 8, 0, 0)],
            0,
        ),
        ("empty indirect table", vec![(inside, 0, INDIRECT, 0)], 0),
        ("broken indirect table", vec![(inside, 17, INDIRECT, 0)], 0),
        (
            "indirect table outside",
            vec![(1 << 40, 16, INDIRECT, 0)],
            0,
        ),
        (
            "indirect and next",
            vec![(inside, 16, INDIRECT | NEXT, 1), (inside, 8, WRITE, 0)],
            0,
        ),
    ];
    let mut driver = Driver::start(rng(), 0);
    for (name, descriptors, head) in cases {
        let table = driver.descriptors(0);
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            driver.put_descriptor(table, u16::try_from(index).expect("few"), descriptor);
        }
        driver.offer_head(0, head);
        driver.notify(0);
        driver.wait_broken();
        driver.initialize(0);
        assert_eq!(driver.read(0x70), 15, "whole again after: {name}");
        assert_eq!(driver.request(0, &[Buffer::Writable(8)]).written, 8);
    }
}

#[test]
fn an_indirect_table_within_another_asks_for_a_reset() {
    let mut driver = Driver::start(rng(), 0);
    let (outer, inner) = (driver.allocate(64), driver.allocate(64));
    driver.put_descriptor(driver.descriptors(0), 0, (outer, 16, INDIRECT, 0));
    driver.put_descriptor(outer, 0, (inner, 16, INDIRECT, 0));
    driver.offer_head(0, 0);
    driver.notify(0);
    driver.wait_broken();
}

#[test]
fn more_chains_than_the_ring_holds_ask_for_a_reset() {
    let mut driver = Driver::start(rng(), 0);
    driver.claim_available(0, 65);
    driver.notify(0);
    driver.wait_broken();
}

#[test]
fn indirect_tables_and_drivers_without_event_indices_are_served() {
    for without in [0, F_EVENT_IDX] {
        let mut driver = Driver::start(rng(), without);
        driver.offer_indirect(
            0,
            &[
                Buffer::Writable(3),
                Buffer::Writable(0),
                Buffer::Writable(40),
            ],
        );
        driver.notify(0);
        assert_eq!(driver.wait_used(0)[0].written, 43);
    }
}

#[test]
fn a_saved_device_loads_to_the_same_state_and_goes_on() {
    let mut driver = Driver::start(rng(), 0);
    for _ in 0..100 {
        driver.request(0, &[Buffer::Writable(8)]);
    }
    driver.devices.pause();
    driver.offer(0, &[Buffer::Writable(8)]);
    driver.notify(0);
    let state = driver.save();
    assert!(driver.take_used(0).is_empty(), "nothing happens in a pause");

    let text = serde_json::to_string(&state).expect("the state serializes");
    let read = serde_json::from_str(&text).expect("the state deserializes");
    assert_eq!(state, read);
    let fresh = Driver::attach_paused(rng(), Arc::clone(&driver.memory));
    fresh.transport.restore(&read).expect("the state fits");
    assert_eq!(fresh.save(), state, "saved again it is the same");

    let mut driver = driver.load(rng(), &read);
    assert_eq!(driver.wait_used(0)[0].written, 8);
    driver.request(0, &[Buffer::Writable(8)]);
}

#[test]
fn an_interrupt_that_the_guest_has_not_seen_survives_a_load() {
    let mut driver = Driver::start(rng(), 0);
    driver.offer(0, &[Buffer::Writable(8)]);
    driver.notify(0);
    while !driver.is_interrupted() {
        std::thread::yield_now();
    }
    let state = driver.save();
    assert_eq!(state.interrupt_status, 1);
    let driver = driver.load(rng(), &state);
    assert_eq!(driver.interrupt(), 1);
}

#[test]
fn a_broken_device_is_still_broken_after_a_load_and_a_reset_mends() {
    let mut driver = Driver::start(rng(), 0);
    driver.offer_head(0, 64);
    driver.notify(0);
    driver.wait_broken();
    let state = driver.save();
    let mut driver = driver.load(rng(), &state);
    driver.wait_broken();
    driver.initialize(0);
    assert_eq!(driver.request(0, &[Buffer::Writable(8)]).written, 8);
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let driver = Driver::start(rng(), 0);
    let state = driver.save();
    let load = |state: &super::TransportState| {
        let fresh = Driver::attach_paused(rng(), Arc::clone(&driver.memory));
        fresh.transport.restore(state)
    };
    load(&state).expect("unchanged it fits");
    let mut other = state.clone();
    other.kind = super::DeviceKind::Net;
    load(&other).expect_err("another device");
    let mut other = state.clone();
    other.driver_features |= 1;
    load(&other).expect_err("features that are not offered");
    let mut other = state.clone();
    other.queues.push(other.queues[0]);
    load(&other).expect_err("another number of queues");
    let mut other = state.clone();
    other.queues[0].used = 1 << 50;
    load(&other).expect_err("a ring outside the memory");
    let mut other = state.clone();
    other.queues[0].size = 3;
    load(&other).expect_err("a size that is none");
    let mut other = state;
    other.queues[0].max_size = 128;
    load(&other).expect_err("a queue of another size");
}
