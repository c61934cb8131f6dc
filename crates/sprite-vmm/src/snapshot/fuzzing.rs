//! Files that may be anything.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use super::Payload;
use super::envelope::{CHECKSUM, EnvelopeError, HEADER, MAX_PAYLOAD, fill_in, seal_up, unseal};
use super::seal::decode;
use crate::fuzzing::Input;
use crate::fuzzing::seeds::FROZEN_PAYLOAD;
use crate::virtio::TransportState;
use crate::virtio::fuzzing::take_over;
use crate::vm::VmState;

/// Length of the memory that seals are of.
const MEMORY: u64 = 4 << 20;

/// Most numbers of a true state that are others.
const CHANGES: usize = 8;

type State = Payload<VmState>;

fn open(bytes: &[u8]) -> Result<State, EnvelopeError> {
    unseal(&mut &bytes[..], |source| EnvelopeError::Read {
        path: PathBuf::new(),
        source,
    })
}

/// The first byte says what the rest is: a state file, the seal of a memory file, what is in the envelope of a state,
/// or other numbers for those of a true state.
///
/// # Panics
/// What was read is not the same when it is written and read again.
pub(crate) fn snapshot(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => drop(open(input.rest())),
        1 => {
            let mut page = [0; 4096];
            let bytes = input.bytes(4096);
            page[..bytes.len()].copy_from_slice(bytes);
            let seals = [MEMORY, MEMORY + 4096].map(|length| decode(&page, length));
            assert!(seals.iter().flatten().count() <= 1, "it is of one length");
        }
        2 => in_its_envelope(input.rest()),
        _ => in_its_envelope(&with_other_numbers(&mut input)),
    }
}

/// A true state in which some numbers are others: each is told by its place, then comes the new one.
fn with_other_numbers(input: &mut Input<'_>) -> Vec<u8> {
    static TRUE: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_slice(FROZEN_PAYLOAD).expect("a program wrote this payload")
    });
    let mut state = TRUE.clone();
    for _ in 0..CHANGES {
        if input.is_empty() {
            break;
        }
        let place = usize::from(input.half());
        let value = match input.byte() % 3 {
            0 => input.long(),
            1 => input.half().into(),
            _ => input.byte().into(),
        };
        // The devices have the smaller part of the numbers and the larger part of the doors.
        let part = match place % 2 {
            0 => &mut state["machine"]["devices"],
            _ => &mut state,
        };
        let mut numbers = Vec::new();
        collect_numbers(part, &mut numbers);
        let place = place / 2 % numbers.len();
        *numbers.swap_remove(place) = value.into();
    }
    state.to_string().into_bytes()
}

fn collect_numbers<'v>(value: &'v mut Value, numbers: &mut Vec<&'v mut Value>) {
    match value {
        Value::Number(_) => numbers.push(value),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| collect_numbers(value, numbers)),
        Value::Object(values) => values
            .values_mut()
            .for_each(|value| collect_numbers(value, numbers)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// What a later program could have put into an envelope that is right, or whoever writes to its directory.
fn in_its_envelope(payload: &[u8]) {
    if payload.len() as u64 > MAX_PAYLOAD {
        return;
    }
    let mut bytes = vec![0; HEADER + CHECKSUM];
    bytes.extend(payload);
    fill_in(&mut bytes, payload.len() as u64);
    let state = match open(&bytes) {
        Ok(state) => state,
        Err(EnvelopeError::Payload(_)) => return,
        Err(other) => panic!("an envelope that is right is refused: {other}"),
    };
    let again = seal_up(&state).expect("what was read can be written");
    let same = open(&again).expect("what was written can be read");
    assert!(
        seal_up(&same).expect("what was read can be written") == again,
        "written and read again it is the same"
    );
    let mut state = serde_json::to_value(&state).expect("it is JSON");
    let mut devices = state["machine"]["devices"].take();
    for device in devices.as_array_mut().into_iter().flatten() {
        let device: TransportState =
            serde_json::from_value(device.take()).expect("it was one of a state that was read");
        take_over(&device);
    }
}
