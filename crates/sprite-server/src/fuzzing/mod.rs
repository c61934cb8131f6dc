//! What a hostile client can send, each way in as one function of bytes.
//!
//! The programs in `fuzz/` hand a fuzzer's bytes to these functions, tests hand them the seeds and what comes of
//! the seeds by chance. A function returns, whatever the bytes; it panics where the server would have panicked, or
//! where what was read is not what was said.
//!
//! This is a part of the crate, and not of `fuzz/`, because what is tried is not public; it is compiled only for
//! tests and with the feature `fuzzing`.

mod pieces;
mod seeds;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use sprite_api::query::Query;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use self::pieces::Pieces;
use crate::exec::params::{self, Wanted};
use crate::serve::head;
use crate::ws::{Message, ReadError, Reader, Violation};
use crate::{control, edge, fs, proxy};

pub use seeds::{Seed, seeds};

/// Takes a fuzzer's bytes; panics if a promise is broken by them.
pub type Entry = fn(&[u8]);

/// Every entry with its name.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("socket", socket),
    ("hello", hello),
    ("envelope", envelope),
    ("query", query),
    ("head", line),
    ("visitor", visitor),
];

/// Longest message of the sockets that are tried: inputs are shorter, so that what is too long is tried by its head.
const MOST: usize = 1 << 20;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without threads").block_on(future)
}

/// Reads the bytes as frames of a client's WebSocket: in one piece, and in pieces of the length that the first byte
/// says.
///
/// # Panics
/// Messages depend on how they are cut, or one is longer than it may be.
pub fn socket(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = block_on(messages(Pieces::new(bytes, bytes.len())));
    let pieces = block_on(messages(Pieces::new(bytes, usize::from(*size))));
    assert_eq!(whole, pieces, "messages do not depend on how they are cut");
    for message in &whole.0 {
        let length = match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) | Message::Ping(bytes) => bytes.len(),
            Message::Close(_) => 0,
        };
        assert!(length <= MOST, "a message of {length} bytes");
    }
}

/// The messages, and what the client did wrong in the end.
async fn messages(io: Pieces<'_>) -> (Vec<Message>, Option<Violation>) {
    let mut reader = Reader::new(io, MOST);
    let mut messages = Vec::new();
    loop {
        match reader.next().await {
            Ok(message) => messages.push(message),
            Err(ReadError::Violation(violation)) => return (messages, Some(violation)),
            Err(ReadError::Eof) => return (messages, None),
            Err(ReadError::Io(error)) => panic!("pieces do not break: {error}"),
        }
    }
}

/// Reads the bytes as the first message of a proxy.
///
/// # Panics
/// The port is none, or what was read is not what is written again.
pub fn hello(bytes: &[u8]) {
    if let Ok(hello) = proxy::read_hello(bytes) {
        assert_ne!(hello.port, 0, "port 0 is none");
        let again = serde_json::to_vec(&hello).expect("hellos have string keys");
        let again = proxy::read_hello(&again).ok();
        assert_eq!(again.as_ref(), Some(&hello));
    }
}

/// Reads the bytes as a message between two operations of the control socket, and what it asks for to its end.
///
/// # Panics
/// The answer is no envelope, or an operation is asked for that cannot be.
pub fn envelope(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        control::try_text(text);
    }
}

/// Reads the bytes as the query of an exec, of an attach and of every operation on files.
///
/// # Panics
/// A query is not what it writes, or a command is wanted that no kernel can start.
pub fn query(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).map(Query::parse);
    let Ok(Ok(query)) = text else {
        return;
    };
    let again = Query::parse(&query.encode()).expect("what was written can be read");
    assert_eq!(again, query);
    session(&query);
    fs::params::try_all(&query);
}

/// Reads what session is wanted.
pub(crate) fn session(query: &Query) {
    if let Ok(Wanted::Start(spec)) = params::wanted(query) {
        assert!(!spec.path.is_empty() && !spec.argv.is_empty());
        let texts = spec.argv.iter().chain([&spec.path]).chain(&spec.dir);
        let names = spec.env.iter().flat_map(|(name, value)| [name, value]);
        for text in texts.chain(names) {
            assert!(!text.contains('\0'), "{text:?} is no text of a command");
        }
        assert!(spec.env.iter().all(|(name, _)| !name.is_empty()));
        assert!(spec.tty.is_none_or(|size| size.rows > 0 && size.cols > 0));
    }
}

/// Reads the bytes as what a connection begins with: in one piece, and in pieces of the length that the first byte says.
///
/// # Panics
/// What is handed on depends on how it is cut, or is not what came.
pub fn line(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = block_on(opened(Pieces::new(bytes, bytes.len())));
    let pieces = block_on(opened(Pieces::new(bytes, usize::from(*size))));
    assert_eq!(whole, pieces, "a line does not depend on how it is cut");
    // No input is long enough for a query to be cut out.
    assert!(
        whole.is_none_or(|handed| handed == bytes),
        "it is handed on as it came"
    );
}

/// Reads the bytes as what a visitor of a sprite's URL says: its host, its cookies and where it wants to go, a line each.
///
/// # Panics
/// A host means two things, a cookie of ours gets past, one that nobody made is good, or a browser is sent elsewhere.
pub fn visitor(bytes: &[u8]) {
    edge::try_visit(bytes);
}

/// What the HTTP parser is handed, if anything.
async fn opened(io: Pieces<'_>) -> Option<Vec<u8>> {
    let io = tokio::io::join(io, tokio::io::sink());
    let permits = Arc::new(Semaphore::new(1));
    let opened = head::open(io, &permits).await.expect("pieces do not break");
    let (mut handed, _) = opened?;
    let mut bytes = Vec::new();
    let read = handed.read_to_end(&mut bytes).await;
    read.expect("pieces do not break");
    Some(bytes)
}
