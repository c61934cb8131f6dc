//! Moves the frames of one operation between its stream and the process that does it.

use std::io;

use bytes::{Bytes, BytesMut};
use sprite_agent_api::fs::{FsCall, FsError, FsReply};
use sprite_agent_api::link::{Receiver, Sender};
use sprite_agent_api::{Frame, FrameKind};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{OWED_WITHIN, next_frame};

/// How an operation ended that did not say its last word.
enum Lost {
    /// The host or its client is gone: nobody is left to be told.
    Host,
    /// The process is, or what it says is no frame, or it says nothing.
    Helper,
}

/// Returns when the operation is over. On both sides an empty frame of bytes says that all was said; a socket that
/// closes without it broke off, and what was half done is undone.
pub(super) async fn relay(
    call: &FsCall,
    mut socket: UnixStream,
    sender: &Sender,
    receiver: &mut Receiver,
) {
    // Whether the process is to answer now, or may wait for what is still to come.
    let (tell_owed, owed) = watch::channel(owes_at_once(call));
    let lost = {
        let (mut from, mut to) = socket.split();
        let up = async {
            let mut buffer = BytesMut::new();
            loop {
                // First room: what cannot be sent on is not read, and so the process waits.
                sender.room().await.map_err(|_| Lost::Host)?;
                let frame = owed_frame(&mut from, &mut buffer, owed.clone()).await;
                match frame.map_err(|_| Lost::Helper)? {
                    Some(frame) if is_end(&frame, FrameKind::Stdout) => return Ok(()),
                    Some(frame) => sender.send(frame).await.map_err(|_| Lost::Host)?,
                    None => return Err(Lost::Helper),
                }
            }
        };
        let down = async {
            loop {
                match receiver.recv().await {
                    Ok(Some(frame)) if is_end(&frame, FrameKind::Stdin) => {}
                    Ok(Some(frame)) => give(&mut to, &frame).await?,
                    Ok(None) => {
                        let end = Frame::data(FrameKind::Stdin, Bytes::new());
                        give(&mut to, &end).await?;
                        // All has come: from here on an answer is owed, unless it watches until it is told to end.
                        tell_owed.send_replace(!matches!(call, FsCall::Watch));
                        return Ok(());
                    }
                    Err(_) => return Err(Lost::Host),
                }
            }
        };
        tokio::pin!(up, down);
        tokio::select! {
            done = &mut up => done.err(),
            done = &mut down => match done {
                Ok(()) => up.await.err(),
                // It may have said why it takes no more.
                Err(Lost::Helper) => up.await.err(),
                Err(Lost::Host) => Some(Lost::Host),
            },
        }
    };
    if let Some(Lost::Helper) = lost {
        let refused = FsReply::Refused(FsError {
            errno: libc::EIO,
            step: "reach the process that handles files".to_owned(),
            path: String::new(),
        });
        // A host that is gone does not hear it.
        let _ = sender.send(Frame::control(&refused)).await;
    }
}

fn owes_at_once(call: &FsCall) -> bool {
    match call {
        FsCall::Write { .. } | FsCall::Unpack { .. } | FsCall::Watch => false,
        FsCall::Read { .. }
        | FsCall::List { .. }
        | FsCall::Delete { .. }
        | FsCall::Rename { .. }
        | FsCall::Copy { .. }
        | FsCall::Chmod { .. }
        | FsCall::Chown { .. }
        | FsCall::Pack { .. } => true,
    }
}

fn is_end(frame: &Frame, kind: FrameKind) -> bool {
    frame.kind == kind && frame.payload.is_empty()
}

async fn owed_frame(
    from: &mut tokio::net::unix::ReadHalf<'_>,
    buffer: &mut BytesMut,
    mut owed: watch::Receiver<bool>,
) -> io::Result<Option<Frame>> {
    let late = async {
        // The other end lives as long as the operation.
        let _ = owed.wait_for(|owed| *owed).await;
        tokio::time::sleep(OWED_WITHIN).await;
    };
    tokio::select! {
        biased;
        frame = next_frame(from, buffer) => frame,
        () = late => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn give(to: &mut tokio::net::unix::WriteHalf<'_>, frame: &Frame) -> Result<(), Lost> {
    let give = async {
        to.write_all(&frame.head()).await?;
        to.write_all(&frame.payload).await
    };
    match timeout(OWED_WITHIN, give).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Lost::Helper),
    }
}
