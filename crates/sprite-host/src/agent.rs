//! Short questions to a machine's agent, each under a deadline.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::CodecError;
use sprite_agent_api::link::{Epoch, LinkError};
use sprite_agent_api::message::{Failure, Reply, Request};
use sprite_machine::Machine;

use crate::awake::open_stream;

/// Why an agent did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The stream failed.
    #[error("reach the agent")]
    Link(#[from] LinkError),
    /// The answer cannot be read.
    #[error("read the agent's answer")]
    Codec(#[from] CodecError),
    /// The stream ended before an answer.
    #[error("wait for the agent's answer: it said nothing")]
    Silent,
    /// Nothing came in time.
    #[error("wait for the agent's answer: none within {0:?}")]
    Late(Duration),
    /// The agent could not do it.
    #[error("agent could not: {}", .0.message)]
    Refused(Failure),
    /// The machine ended meanwhile.
    #[error("machine ended: {0}")]
    Exited(String),
}

/// Asks the agent of `machine` one question that has one answer. Ends early if the machine does.
pub(crate) async fn ask(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    request: &Request,
    within: Duration,
) -> Result<Reply, AskError> {
    tokio::select! {
        // An answer that is there counts, even if the machine ended right behind it.
        biased;
        answer = answer(machine, epoch, request) => answer,
        exit = machine.exited() => Err(AskError::Exited(exit.reason)),
        () = tokio::time::sleep(within) => Err(AskError::Late(within)),
    }
}

async fn answer(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    request: &Request,
) -> Result<Reply, AskError> {
    let mut stream = open_stream(machine, epoch, request);
    stream.sender.finish();
    let frame = stream.receiver.recv().await?.ok_or(AskError::Silent)?;
    match frame.message::<Reply>()? {
        Reply::Failed(failure) => Err(AskError::Refused(failure)),
        reply @ (Reply::Ready(_)
        | Reply::Started(_)
        | Reply::Exited { .. }
        | Reply::Sessions { .. }
        | Reply::Kill(_)
        | Reply::Synced
        | Reply::Port(_)) => Ok(reply),
    }
}
