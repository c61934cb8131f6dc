//! What a hostile other end can send, each way in as one function of bytes.
//!
//! The programs in `fuzz/` hand a fuzzer's bytes to these functions, tests hand them the seeds and what comes of
//! the seeds by chance. A function returns, whatever the bytes; it panics where the host would have panicked, or
//! where a promise of the contract would have been broken.
//!
//! This is a part of the crate, and not of `fuzz/`, because what is tried is not public; it is compiled only for
//! tests and with the feature `fuzzing`.

mod link;
mod seeds;

#[cfg(test)]
mod tests;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::calls::CallReply;
use crate::codec::{self, CodecError, Record};
use crate::fs::{FsReply, WatchInput};
use crate::message::{Input, Reply, Request};
use crate::ports::PortsReply;
use crate::services::ServicesReply;
use crate::tcp::ConnectReply;

pub use seeds::{Seed, seeds};

/// Takes a fuzzer's bytes; panics if a promise is broken by them.
pub type Entry = fn(&[u8]);

/// Every entry with its name.
pub const ENTRIES: &[(&str, Entry)] = &[("frames", frames), ("link", link)];

/// Reads the bytes as records: in one piece, and in pieces of the length that the first byte says.
///
/// # Panics
/// Records depend on how they are cut, or what was read is not what is written again.
pub fn frames(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = records(bytes, bytes.len().max(1));
    let pieces = records(bytes, usize::from(*size).max(1));
    assert_eq!(whole, pieces, "records do not depend on how they are cut");
    for record in &whole.0 {
        let (header, payload) = codec::encode(record);
        let mut wire = BytesMut::from(&header[..]);
        wire.extend_from_slice(&payload);
        let again = codec::decode(&mut wire).expect("what was written can be read");
        assert_eq!(again.as_ref(), Some(record));
        if let Record::Frame(frame) = record {
            same_again::<Reply>(frame);
            same_again::<Request>(frame);
            same_again::<Input>(frame);
            same_again::<ConnectReply>(frame);
            same_again::<PortsReply>(frame);
            same_again::<FsReply>(frame);
            same_again::<WatchInput>(frame);
            same_again::<CallReply>(frame);
            same_again::<ServicesReply>(frame);
        }
    }
}

/// The records up to the first that is none, and whether there is one.
fn records(bytes: &[u8], size: usize) -> (Vec<Record>, bool) {
    let mut buffer = BytesMut::new();
    let mut records = Vec::new();
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match codec::decode(&mut buffer) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(CodecError::Length { .. } | CodecError::Kind { .. }) => return (records, true),
                Err(error @ (CodecError::NotControl { .. } | CodecError::Json(_))) => {
                    panic!("a record is not a message: {error}")
                }
            }
        }
    }
    (records, false)
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(frame: &crate::Frame) {
    if let Ok(message) = frame.message::<T>() {
        let again = crate::Frame::control(&message).message::<T>();
        assert_eq!(again.expect("what was written can be read"), message);
    }
}

/// Has an agent say on its transports what the bytes say, and a host listen, speak and connect again.
///
/// # Panics
/// The host hears something else than whole frames in their order.
pub fn link(bytes: &[u8]) {
    link::link(bytes);
}
