//! One transport under a stream: the handshake, then both directions until it breaks or the stream ends.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::state::{LinkError, Shared};
use super::{BoxedTransport, Epoch, StreamId, broken};
use crate::PROTOCOL;
use crate::codec::{self, Record};

const HELLO_MAGIC: &[u8; 4] = b"SPLH";
const WELCOME_MAGIC: &[u8; 4] = b"SPLW";
const HELLO_LEN: usize = 4 + 4 + 1 + 16 + 8 + 8;
const WELCOME_LEN: usize = 4 + 4 + 1 + 8;

/// Bytes asked of the transport at once: little while little comes, so that an idle stream is small.
const READ_SMALL: usize = 4 << 10;
const READ_LARGE: usize = 256 << 10;
/// Records laid together in one vectored write.
const BATCH: usize = 16;

/// Why the other end would not speak.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The transport broke.
    #[error("exchange greetings")]
    Io(#[from] io::Error),
    /// The other end speaks another protocol.
    #[error("agent speaks protocol {theirs}, this host {PROTOCOL}")]
    Protocol {
        /// The other end's number.
        theirs: u32,
    },
    /// The agent does not know the stream (any more).
    #[error("agent does not know the stream")]
    UnknownStream,
    /// The agent has as many streams as it allows.
    #[error("agent has too many streams")]
    TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    Resume,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) mode: Mode,
    pub(crate) stream: StreamId,
    pub(crate) epoch: Epoch,
    pub(crate) received: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    UnknownStream,
    Protocol,
    TooMany,
}

fn take<const N: usize>(buffer: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    buffer.copy_to_slice(&mut out);
    out
}

pub(crate) fn hello_bytes(hello: &Hello) -> Bytes {
    let mut out = BytesMut::with_capacity(HELLO_LEN);
    out.extend_from_slice(HELLO_MAGIC);
    out.extend_from_slice(&hello.protocol.to_le_bytes());
    out.extend_from_slice(&[match hello.mode {
        Mode::Open => 0,
        Mode::Resume => 1,
    }]);
    out.extend_from_slice(&hello.stream.0.to_le_bytes());
    out.extend_from_slice(&hello.epoch.0.to_le_bytes());
    out.extend_from_slice(&hello.received.to_le_bytes());
    out.freeze()
}

pub(crate) async fn read_hello(transport: &mut BoxedTransport) -> io::Result<Hello> {
    let mut bytes = [0; HELLO_LEN];
    transport.read_exact(&mut bytes).await?;
    let mut rest = &bytes[..];
    if &take::<4>(&mut rest) != HELLO_MAGIC {
        return Err(broken("greeting of something that is not a host"));
    }
    let protocol = u32::from_le_bytes(take(&mut rest));
    let mode = match take::<1>(&mut rest) {
        [0] => Mode::Open,
        [1] => Mode::Resume,
        _ => return Err(broken("greeting of unknown mode")),
    };
    let stream = StreamId(u128::from_le_bytes(take(&mut rest)));
    let epoch = Epoch(u64::from_le_bytes(take(&mut rest)));
    let received = u64::from_le_bytes(take(&mut rest));
    Ok(Hello {
        protocol,
        mode,
        stream,
        epoch,
        received,
    })
}

pub(crate) fn welcome_bytes(status: Status, received: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(WELCOME_LEN);
    out.extend_from_slice(WELCOME_MAGIC);
    out.extend_from_slice(&PROTOCOL.to_le_bytes());
    out.extend_from_slice(&[match status {
        Status::Ok => 0,
        Status::UnknownStream => 1,
        Status::Protocol => 2,
        Status::TooMany => 3,
    }]);
    out.extend_from_slice(&received.to_le_bytes());
    out.freeze()
}

/// How far the agent received; the host's side of the handshake.
pub(crate) async fn read_welcome(transport: &mut BoxedTransport) -> Result<u64, HandshakeError> {
    let mut bytes = [0; WELCOME_LEN];
    transport.read_exact(&mut bytes).await?;
    let mut rest = &bytes[..];
    if &take::<4>(&mut rest) != WELCOME_MAGIC {
        return Err(broken("greeting of something that is not an agent").into());
    }
    let theirs = u32::from_le_bytes(take(&mut rest));
    let status = take::<1>(&mut rest);
    let received = u64::from_le_bytes(take(&mut rest));
    match status {
        [0] => Ok(received),
        [1] => Err(HandshakeError::UnknownStream),
        [2] => Err(HandshakeError::Protocol { theirs }),
        [3] => Err(HandshakeError::TooMany),
        _ => Err(broken("greeting of unknown status").into()),
    }
}

/// How the use of one transport ended.
pub(crate) enum Ended {
    /// Both directions said all they had.
    Finished,
    /// The stream failed; the other end was told if that was possible.
    Failed,
    /// Only the transport broke: the stream can go on over another one.
    Broken(io::Error),
}

/// Moves records both ways until the stream ends or the transport breaks. `greeting` goes out first, together
/// with whatever is queued already.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    transport: BoxedTransport,
    greeting: Greeting,
) -> Ended {
    let (mut reader, mut writer) = tokio::io::split(transport);
    if let Err(error) = writer.write_all(&greeting.send).await {
        return Ended::Broken(error);
    }
    let ended = {
        let receive = receive(shared, &mut reader, greeting.await_welcome);
        let send = send(shared, &mut writer);
        tokio::pin!(receive, send);
        tokio::select! {
            ended = &mut receive => ended,
            ended = &mut send => match ended {
                // We said all; wait for what the other end still has to say, or for its end.
                Ended::Finished => receive.await,
                other @ (Ended::Failed | Ended::Broken(_)) => other,
            },
        }
    };
    if matches!(ended, Ended::Failed) {
        let (header, _) = codec::encode(&Record::Abort);
        // Best effort: a transport that is gone tells the other end just as well.
        let _ = writer.write_all(&header).await;
    }
    let _ = writer.shutdown().await;
    ended
}

/// What is said before the first record.
pub(crate) struct Greeting {
    pub(crate) send: Bytes,
    /// The host's side of a *new* stream reads its Welcome while it sends already.
    pub(crate) await_welcome: bool,
}

async fn receive<R: AsyncRead + Unpin>(
    shared: &Arc<Shared>,
    reader: &mut R,
    await_welcome: bool,
) -> Ended {
    let mut buffer = BytesMut::with_capacity(READ_SMALL);
    let mut chunk = READ_SMALL;
    let mut welcomed = !await_welcome;
    loop {
        if welcomed && let Err(reason) = take_records(shared, &mut buffer) {
            shared.fail(reason);
        }
        if shared.failure().is_some() {
            return Ended::Failed;
        }
        if buffer.capacity() - buffer.len() < chunk / 4 {
            buffer.reserve(chunk);
        }
        let spare = buffer.capacity() - buffer.len();
        match reader.read_buf(&mut buffer).await {
            Ok(0) if shared.finished() => return Ended::Finished,
            Ok(0) => return Ended::Broken(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => chunk = if n == spare { READ_LARGE } else { chunk },
            Err(error) => return Ended::Broken(error),
        }
        if !welcomed && buffer.len() >= WELCOME_LEN {
            let welcome = buffer.split_to(WELCOME_LEN);
            let mut boxed: BoxedTransport = Box::new(io_cursor(welcome));
            match read_welcome(&mut boxed).await {
                Ok(_) => welcomed = true,
                Err(HandshakeError::Io(error)) => return Ended::Broken(error),
                Err(refused) => {
                    let reason = LinkError::Gone(refused.to_string());
                    shared.fail(reason);
                    return Ended::Failed;
                }
            }
        }
    }
}

fn take_records(shared: &Arc<Shared>, buffer: &mut BytesMut) -> Result<(), LinkError> {
    let unreadable = |_| LinkError::Protocol("record that cannot be read");
    while let Some(record) = codec::decode(buffer).map_err(unreadable)? {
        shared.on_record(record)?;
    }
    Ok(())
}

fn io_cursor(bytes: BytesMut) -> impl super::Transport {
    tokio::io::join(io::Cursor::new(bytes), tokio::io::sink())
}

async fn send<W: AsyncWrite + Unpin>(shared: &Arc<Shared>, writer: &mut W) -> Ended {
    let mut batch: Vec<(Bytes, Bytes)> = Vec::with_capacity(BATCH);
    loop {
        if shared.failure().is_some() {
            return Ended::Failed;
        }
        while batch.len() < BATCH
            && let Some(record) = shared.next_to_send()
        {
            batch.push(record);
        }
        if batch.is_empty() {
            if shared.finished() {
                // The other end sees that nothing follows, and says the same.
                let _ = writer.shutdown().await;
                return Ended::Finished;
            }
            shared.to_send.notified().await;
            continue;
        }
        if let Err(error) = write_batch(writer, &mut batch).await {
            return Ended::Broken(error);
        }
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(
    writer: &mut W,
    batch: &mut Vec<(Bytes, Bytes)>,
) -> io::Result<()> {
    while !batch.is_empty() {
        let slices: Vec<IoSlice<'_>> = batch
            .iter()
            .flat_map(|(header, payload)| [IoSlice::new(header), IoSlice::new(payload)])
            .filter(|slice| !slice.is_empty())
            .collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        batch.retain_mut(|(header, payload)| {
            for part in [header, payload] {
                let n = written.min(part.len());
                part.advance(n);
                written -= n;
                if !part.is_empty() {
                    return true;
                }
            }
            false
        });
    }
    Ok(())
}
