//! Short questions to a machine's agent, each under a deadline.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::idle::IdleReply;
use sprite_agent_api::link::{Epoch, LinkError};
use sprite_agent_api::message::{Failure, FailureKind, Reply, Request};
use sprite_agent_api::policy::{PolicyReply, PolicySpec};
use sprite_agent_api::services::ServicesReply;
use sprite_agent_api::{CodecError, Frame};
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
    unless_it_ends(machine, within, answer(machine, epoch, request)).await
}

/// Tells the agent of `machine` its policies, all of them. An agent of an earlier version knows of none: it is told
/// only what differs from the default.
pub(crate) async fn tell_policies(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    spec: PolicySpec,
    within: Duration,
) -> Result<(), AskError> {
    let usual = spec == PolicySpec::default();
    let request = Request::Policy(spec);
    let told = async {
        let frame = first_frame(machine, epoch, &request).await?;
        match frame.message::<PolicyReply>()? {
            PolicyReply::Applied => Ok(()),
            PolicyReply::Failed(failure) if usual && failure.kind == FailureKind::Invalid => Ok(()),
            PolicyReply::Failed(failure) => Err(AskError::Refused(failure)),
        }
    };
    unless_it_ends(machine, within, told).await
}

/// What inside the machine is in use though nothing goes to and fro, if anything is. An agent of an earlier version
/// knows of nothing.
pub(crate) async fn in_use(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    within: Duration,
) -> Result<Option<String>, AskError> {
    let asked = async {
        let frame = first_frame(machine, epoch, &Request::Idle).await?;
        match frame.message::<IdleReply>()? {
            IdleReply::Idle => Ok(None),
            IdleReply::InUse { what } => Ok(Some(what)),
            IdleReply::Failed(failure) if failure.kind == FailureKind::Invalid => Ok(None),
            IdleReply::Failed(failure) => Err(AskError::Refused(failure)),
        }
    };
    unless_it_ends(machine, within, asked).await
}

/// Tells the agent of `machine` what services there are to be.
pub(crate) async fn tell_services(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    request: &Request,
    within: Duration,
) -> Result<(), AskError> {
    let told = async {
        let frame = first_frame(machine, epoch, request).await?;
        match frame.message::<ServicesReply>()? {
            ServicesReply::Applied
            | ServicesReply::States { .. }
            | ServicesReply::Event(_)
            | ServicesReply::Listening => Ok(()),
            ServicesReply::Failed(failure) => Err(AskError::Refused(failure)),
        }
    };
    unless_it_ends(machine, within, told).await
}

async fn unless_it_ends<T>(
    machine: &Arc<dyn Machine>,
    within: Duration,
    answer: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    tokio::select! {
        // An answer that is there counts, even if the machine ended right behind it.
        biased;
        answer = answer => answer,
        exit = machine.exited() => Err(AskError::Exited(exit.reason)),
        () = tokio::time::sleep(within) => Err(AskError::Late(within)),
    }
}

/// What the agent says first; the host says nothing more.
async fn first_frame(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    request: &Request,
) -> Result<Frame, AskError> {
    let mut stream = open_stream(machine, epoch, request);
    stream.sender.finish();
    stream.receiver.recv().await?.ok_or(AskError::Silent)
}

async fn answer(
    machine: &Arc<dyn Machine>,
    epoch: Epoch,
    request: &Request,
) -> Result<Reply, AskError> {
    let frame = first_frame(machine, epoch, request).await?;
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
