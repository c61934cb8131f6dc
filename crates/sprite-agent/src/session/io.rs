//! Bytes from and to a session's process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sprite_agent_api::MAX_DATA;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::{Session, Stdin, Stream};

/// A terminal whose session ended may still be held open by a background process: output that is on its way
/// in the kernel gets this long.
const TERMINAL_DRAIN: Duration = Duration::from_millis(100);

impl Session {
    pub(super) async fn read_pipe(self: Arc<Self>, stream: Stream, mut pipe: pipe::Receiver) {
        let mut buffer = Chunks::default();
        let mut ended = self.process_ended.subscribe();
        loop {
            self.room(stream).await;
            let got = tokio::select! {
                biased;
                got = buffer.read(&mut pipe) => Some(got),
                _ = ended.wait_for(|ended| *ended) => None,
            };
            let Some(got) = got else {
                // Whoever still holds the pipe open, a background process, is not this session any more.
                return self.drain_pipe(stream, &pipe, buffer).await;
            };
            match got {
                Ok(chunk) if chunk.is_empty() => return,
                Ok(chunk) => self.push(stream, chunk),
                Err(_) => return,
            }
        }
    }

    async fn drain_pipe(
        self: &Arc<Self>,
        stream: Stream,
        pipe: &pipe::Receiver,
        mut buffer: Chunks,
    ) {
        loop {
            self.room(stream).await;
            match buffer.try_read(|space| pipe.try_read(space)) {
                Ok(chunk) if chunk.is_empty() => return,
                Ok(chunk) => self.push(stream, chunk),
                Err(_) => return,
            }
        }
    }

    pub(super) async fn read_terminal(self: Arc<Self>, master: Arc<AsyncFd<OwnedFd>>) {
        let mut buffer = Chunks::default();
        let mut ended = self.process_ended.subscribe();
        loop {
            self.room(Stream::Stdout).await;
            let over = *ended.borrow_and_update();
            let ready = tokio::select! {
                biased;
                ready = master.readable() => ready,
                () = tokio::time::sleep(TERMINAL_DRAIN), if over => return,
                _ = ended.changed(), if !over => continue,
            };
            let Ok(mut ready) = ready else { return };
            let got = ready.try_io(|fd| buffer.try_read(|space| Ok(rustix::io::read(fd, space)?)));
            match got {
                // EIO: the other side is closed, and nothing is left.
                Ok(Ok(chunk)) if chunk.is_empty() => return,
                Ok(Ok(chunk)) => self.push(Stream::Stdout, chunk),
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads into blocks that the chunks then share.
#[derive(Default)]
struct Chunks {
    block: BytesMut,
}

impl Chunks {
    /// A block is left when so little of it is free.
    const LEAST: usize = 4 << 10;

    fn space(&mut self) {
        if self.block.capacity() - self.block.len() < Self::LEAST {
            self.block = BytesMut::with_capacity(MAX_DATA);
        }
    }

    /// The next bytes; none at the end. Cancel safe.
    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
        self.space();
        from.read_buf(&mut self.block).await?;
        Ok(self.block.split().freeze())
    }

    fn try_read(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        self.space();
        let space = self.block.capacity() - self.block.len();
        self.block.resize(space, 0);
        match read(&mut self.block) {
            Ok(n) => {
                let chunk = self.block.split_to(n).freeze();
                self.block.clear();
                Ok(chunk)
            }
            Err(error) => {
                self.block.clear();
                Err(error)
            }
        }
    }
}

pub(super) async fn write_pipe(mut queue: mpsc::Receiver<Stdin>, pipe: Option<pipe::Sender>) {
    let Some(mut pipe) = pipe else { return };
    while let Some(Stdin::Bytes(bytes)) = queue.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What a terminal takes for the end of its input. Source: termios(3), VEOF.
const END_OF_INPUT: &[u8] = &[4];

pub(super) async fn write_terminal(
    mut queue: mpsc::Receiver<Stdin>,
    master: Arc<AsyncFd<OwnedFd>>,
) {
    while let Some(stdin) = queue.recv().await {
        let bytes = match stdin {
            Stdin::Bytes(bytes) => bytes,
            Stdin::Eof => Bytes::from_static(END_OF_INPUT),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok(mut ready) = master.writable().await else {
                return;
            };
            match ready.try_io(|fd| Ok(rustix::io::write(fd, rest)?)) {
                Ok(Ok(n)) => rest = &rest[n..],
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}
