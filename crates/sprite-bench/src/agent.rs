//! Asking a guest's agent whether it is there, over the monitor's socket, as the driver does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sprite_agent_api::Frame;
use sprite_agent_api::guest::AGENT_PORT;
use sprite_agent_api::link::{self, BoxedTransport, Connect, Epoch, StreamId};
use sprite_agent_api::message::{Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::failure::{Failure, Outcome, io_failure};
use crate::monitor::PATIENCE;

/// One process asks; what it asked before a save it does not ask for again.
const EPOCH: Epoch = Epoch(1);

/// Asks agents.
pub(crate) struct Host {
    runtime: Runtime,
    /// Streams that were opened. Agents remember them, also those that were saved and loaded.
    streams: u128,
}

struct Dial(PathBuf);

#[async_trait]
impl Connect for Dial {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let mut stream = UnixStream::connect(&self.0).await?;
        let request = format!("CONNECT {AGENT_PORT}\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // One byte at a time: what follows is the agent's.
        while answer.last() != Some(&b'\n') {
            answer.push(stream.read_u8().await?);
        }
        Ok(Box::new(stream))
    }
}

impl Host {
    pub(crate) fn new() -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io_failure("start the runtime"))?;
        Ok(Self {
            runtime,
            streams: 0,
        })
    }

    /// Returns when the agent behind a vsock socket has answered.
    pub(crate) fn ping(&mut self, vsock: &Path) -> Outcome {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let connect = Arc::new(Dial(vsock.to_owned()));
        let failed = |why: String| Failure::Check(format!("ask the agent: {why}"));
        let asked = async {
            let mut stream = link::open(connect, EPOCH, stream);
            let request = Frame::control(&Request::Ping);
            let sent = stream.sender.send(request).await;
            sent.map_err(|error| failed(error.to_string()))?;
            let answer = stream.receiver.recv().await;
            let answer = answer.map_err(|error| failed(error.to_string()))?;
            let frame = answer.ok_or_else(|| failed("it says nothing".to_owned()))?;
            match frame.message::<Reply>() {
                Ok(Reply::Ready(_)) => Ok(()),
                Ok(other) => Err(failed(format!("it says {other:?}"))),
                Err(error) => Err(failed(error.to_string())),
            }
        };
        self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(done) => done,
                Err(_) => Err(failed("it does not answer".to_owned())),
            }
        })
    }
}
