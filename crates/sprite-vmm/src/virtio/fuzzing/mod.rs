//! What a guest can do to its devices, driven by a fuzzer's bytes.

mod guest;
mod hosts;

use vm_memory::{Bytes, GuestAddress};

use super::chain::walk;
use super::{DeviceKind, TransportState};
use crate::fuzzing::Input;
use crate::memory::anonymous;
use hosts::{Cable, Medium, Peers};

const MEMORY: u64 = 1 << 20;
const TABLE: u64 = 0x1000;
/// Descriptors in the table.
const SIZE: u16 = 16;

/// Follows one chain of descriptors. The bytes are its head and then the table's descriptors.
///
/// # Panics
/// The chain has more buffers than the table has descriptors, or longer ones than the memory.
pub(crate) fn chain(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let memory = anonymous(MEMORY).expect("1 MiB");
    let head = input.half();
    memory
        .write_slice(input.rest(), GuestAddress(TABLE))
        .unwrap_or_default();
    let Ok(chain) = walk(&memory, TABLE, SIZE, head) else {
        return;
    };
    let most = usize::from(SIZE);
    for buffers in [&chain.readable, &chain.writable] {
        assert!(buffers.pieces().len() <= most);
        let sum: usize = buffers.pieces().iter().map(|piece| piece.len()).sum();
        assert_eq!(sum, buffers.len());
        assert!(sum <= most << 20);
    }
    let len = chain.readable.len();
    let at = len / 2;
    let (front, back) = chain.readable.split(at).expect("it is long enough");
    assert_eq!((front.len(), back.len()), (at, len - at));
}

/// A guest and its disk.
///
/// # Panics
/// See [`guest::run`]; so for the others.
pub(crate) fn block(bytes: &[u8]) {
    guest::run(&mut Medium::new(), bytes);
}

/// A guest and its network card.
pub(crate) fn net(bytes: &[u8]) {
    guest::run(&mut Cable::new(), bytes);
}

/// A guest and its socket, with processes of the host at the other end.
pub(crate) fn vsock(bytes: &[u8]) {
    guest::run(&mut Peers::new(), bytes);
}

/// A device of an empty machine that takes over from a saved one.
///
/// # Panics
/// It takes over and does not work, not even after a reset.
pub(crate) fn take_over(state: &TransportState) {
    match state.kind {
        DeviceKind::Block => guest::take_over(&mut Medium::new(), state),
        DeviceKind::Net => guest::take_over(&mut Cable::new(), state),
        DeviceKind::Vsock => guest::take_over(&mut Peers::new(), state),
        // It keeps nothing.
        DeviceKind::Entropy => {}
    }
}
