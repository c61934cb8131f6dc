//! A host's stream over transports on which anything may come.

use std::io::Cursor;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::records;
use crate::codec::{self, Frame, FrameKind, Record};
use crate::link::connection::{self, Ended, Greeting, Status};
use crate::link::state::{LinkError, Receiver, Sender, Shared};

/// Most transports of one run.
const TRANSPORTS: usize = 4;

/// What the agent does on one transport.
struct Said {
    /// Its greeting, if it has one.
    welcome: Option<Bytes>,
    bytes: Vec<u8>,
    /// How far it says that it has received when the next transport is made.
    received: u64,
}

/// The first bytes say what the host does: how many frames it sends, whether it ends, and how many it hears.
pub(super) fn link(bytes: &[u8]) {
    let mut input = bytes;
    let sends = byte(&mut input) % 8;
    let finishes = byte(&mut input) % 2 == 1;
    let hears = usize::from(byte(&mut input));
    let mut said = Vec::new();
    while !input.is_empty() && said.len() < TRANSPORTS {
        let first = said.is_empty();
        said.push(transport(&mut input, first));
    }
    let expected: Vec<Frame> = said
        .iter()
        .flat_map(|said| frames_of(&said.bytes))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let heard = runtime
        .expect("a runtime without threads")
        .block_on(host(said, sends, finishes, hears));
    assert!(
        expected.starts_with(&heard),
        "whole frames in their order are heard: {heard:?} of {expected:?}"
    );
}

fn byte(input: &mut &[u8]) -> u8 {
    match input.split_first() {
        Some((first, rest)) => {
            *input = rest;
            *first
        }
        None => 0,
    }
}

fn number(input: &mut &[u8]) -> usize {
    usize::from(byte(input)) | usize::from(byte(input)) << 8
}

fn some<'i>(input: &mut &'i [u8], most: usize) -> &'i [u8] {
    let (front, back) = input.split_at(most.min(input.len()));
    *input = back;
    front
}

/// What is said up to the step that ends the transport.
fn transport(input: &mut &[u8], first: bool) -> Said {
    let status = match byte(input) % 16 {
        0 => None,
        1 => Some(Status::UnknownStream),
        2 => Some(Status::Protocol),
        3 => Some(Status::TooMany),
        _ => Some(Status::Ok),
    };
    // Only that of the first transport is read behind what is sent.
    let welcome = status.map(|status| connection::welcome_bytes(status, 0));
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let record = match byte(input) % 10 {
            0 => break,
            1 => {
                bytes.extend(some(input, 16));
                continue;
            }
            2 => Record::Fin,
            3 => Record::Abort,
            4 | 5 => Record::Ack(number(input) as u64),
            kind => {
                let kind = match kind {
                    6 => FrameKind::Control,
                    7 => FrameKind::Stdin,
                    8 => FrameKind::Stdout,
                    _ => FrameKind::Stderr,
                };
                let length = number(input) * usize::from(byte(input) % 4 + 1);
                let mut payload = some(input, 32).to_vec();
                payload.resize(length, b'.');
                Record::Frame(Frame::data(kind, payload.into()))
            }
        };
        let (header, payload) = codec::encode(&record);
        bytes.extend(header);
        bytes.extend(payload);
    }
    Said {
        welcome: welcome.filter(|_| first),
        bytes,
        received: number(input) as u64,
    }
}

/// The whole frames before the end, or before what is no record.
fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let (records, _) = records(bytes, bytes.len().max(1));
    let frames = records.into_iter().map_while(|record| match record {
        Record::Frame(frame) => Some(Some(frame)),
        Record::Ack(_) => Some(None),
        Record::Fin | Record::Abort => None,
    });
    frames.flatten().collect()
}

async fn host(said: Vec<Said>, sends: u8, finishes: bool, hears: usize) -> Vec<Frame> {
    let shared = Arc::new(Shared::default());
    let sender = Sender {
        shared: shared.clone(),
    };
    let mut receiver = Receiver {
        shared: shared.clone(),
    };
    for number in 0..sends {
        let payload = vec![number; usize::from(number) * 100];
        let frame = Frame::data(FrameKind::Stdin, payload.into());
        sender.send(frame).await.expect("there is a window of room");
    }
    if finishes {
        sender.finish();
    }
    let listen = async {
        let mut heard = Vec::new();
        while heard.len() < hears {
            match receiver.recv().await {
                Ok(Some(frame)) => heard.push(frame),
                Ok(None) | Err(_) => break,
            }
        }
        drop(receiver);
        heard
    };
    let speak = async {
        for said in said {
            if !over_one(&shared, said).await {
                break;
            }
        }
        shared.fail(LinkError::Gone("no more transports".to_owned()));
    };
    let (heard, ()) = tokio::join!(listen, speak);
    drop(sender);
    heard
}

/// Whether the stream goes on over another transport.
async fn over_one(shared: &Arc<Shared>, said: Said) -> bool {
    let greeting = Greeting {
        send: Bytes::new(),
        await_welcome: said.welcome.is_some(),
    };
    let mut bytes = BytesMut::from(said.welcome.unwrap_or_default().chunk());
    bytes.extend_from_slice(&said.bytes);
    let transport = tokio::io::join(Cursor::new(bytes), tokio::io::sink());
    match connection::run(shared, Box::new(transport), greeting).await {
        Ended::Finished | Ended::Failed => false,
        Ended::Broken(_) => match shared.rewind(said.received) {
            Ok(()) => true,
            Err(reason) => {
                shared.fail(reason);
                false
            }
        },
    }
}
