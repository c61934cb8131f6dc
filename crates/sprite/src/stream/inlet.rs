//! Standard input, read by a thread of its own.

use std::io;
use std::thread;

use bytes::{Bytes, BytesMut};
use futures_util::stream::poll_fn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stdin;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

/// Bytes of one read.
const CHUNK: usize = 64 << 10;
/// Reads that wait to be sent on.
const QUEUE: usize = 4;

/// Our standard input. The thread behind it ends with the process: a blocked read cannot be called back.
#[derive(Debug)]
pub(crate) struct Inlet {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Inlet {
    /// Begins to read standard input.
    pub(crate) fn open() -> Self {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let reading = move || {
            let mut buffer = BytesMut::new();
            loop {
                let read = read_some(&mut buffer);
                let over = !matches!(read, Ok(Some(_)));
                if let Some(chunk) = read.transpose()
                    && sender.blocking_send(chunk).is_err()
                {
                    return;
                }
                if over {
                    return;
                }
            }
        };
        // Without its thread the input is at its end at once; a process that cannot start one has other worries.
        let _ = thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(reading);
        Self { chunks }
    }

    /// The next bytes; `None` at the end of input.
    ///
    /// # Cancel safety
    /// Safe: no bytes are lost.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.chunks.recv().await
    }

    /// The input as a reader.
    pub(crate) fn into_reader(mut self) -> Box<dyn AsyncRead + Send + Unpin> {
        Box::new(StreamReader::new(poll_fn(move |cx| {
            self.chunks.poll_recv(cx)
        })))
    }
}

fn read_some(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    buffer.resize(CHUNK, 0);
    loop {
        match rustix::io::read(stdin(), &mut buffer[..]) {
            // A terminal that hung up, or that was never ours to read, is at its end; so is no input at all.
            Ok(0) | Err(Errno::IO | Errno::BADF) => return Ok(None),
            Ok(len) => {
                buffer.truncate(len);
                return Ok(Some(buffer.split().freeze()));
            }
            Err(Errno::INTR) => {}
            // Whoever shares the stream with us may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let stdin = stdin();
                let _ = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
