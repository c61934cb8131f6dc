//! Connections to the environment's own socket: tests make them in place of processes inside.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sprite_agent_api::calls::CallReply;
use sprite_agent_api::link::{Receiver, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::{Frame, FrameKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

const BUFFER: usize = 16 << 10;

#[derive(Default)]
pub(crate) struct Calls {
    waiting: Mutex<HashMap<u64, DuplexStream>>,
    /// The last call that was made.
    last: watch::Sender<u64>,
}

impl Calls {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, DuplexStream>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects; the stream is what the process inside holds.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        self.last.send_modify(|last| {
            *last += 1;
            self.waiting().insert(*last, theirs);
        });
        ours
    }

    pub(crate) async fn stand(&self, sender: &Sender, receiver: &mut Receiver) {
        let mut last = self.last.subscribe();
        let mut told = 0;
        loop {
            while told < *last.borrow_and_update() {
                told += 1;
                if !self.waiting().contains_key(&told) {
                    continue;
                }
                let call = Frame::control(&CallReply::Call { call: told });
                if sender.send(call).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = last.changed() => if changed.is_err() { return },
                said = receiver.recv() => if !matches!(said, Ok(Some(_))) { return },
            }
        }
    }

    pub(crate) async fn take(&self, call: u64, sender: Sender, mut receiver: Receiver) {
        let Some(connection) = self.waiting().remove(&call) else {
            let failure = Failure {
                kind: FailureKind::NoSession,
                message: "call is gone".to_owned(),
            };
            // A host that is gone needs no answer.
            let _ = sender
                .send(Frame::control(&CallReply::Failed(failure)))
                .await;
            return sender.finish();
        };
        let (mut read, mut write) = tokio::io::split(connection);
        let outward = async {
            sender.send(Frame::control(&CallReply::Taken)).await?;
            let mut buffer = vec![0; BUFFER];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                let bytes = buffer[..n].to_vec().into();
                sender.send(Frame::data(FrameKind::Stdout, bytes)).await?;
            }
            sender.finish();
            Ok::<(), sprite_agent_api::link::LinkError>(())
        };
        let inward = async {
            while let Ok(Some(frame)) = receiver.recv().await {
                if write.write_all(&frame.payload).await.is_err() {
                    return;
                }
            }
            // The process may be gone.
            let _ = write.shutdown().await;
        };
        let _ = tokio::join!(outward, inward);
    }
}
