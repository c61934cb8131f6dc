//! Signals a session, and if wanted sees to it that it ends.

use std::time::Duration;

use sprite_agent_api::link::Sender;
use sprite_agent_api::message::{Failure, FailureKind, KillEvent, KillSpec, Reply};

use crate::agent::Agent;
use crate::operation::{failure, find, reply};
use crate::session::Session;

/// Signals whose usual effect is not the end of the process: nobody waits for an end after them.
const HARMLESS: [i32; 6] = [
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGWINCH,
    libc::SIGCHLD,
    libc::SIGURG,
];

/// Highest signal number. Source: signal(7).
const LAST_SIGNAL: i32 = 64;

/// Performs a kill, telling each step.
pub(crate) async fn perform(
    agent: &Agent,
    spec: &KillSpec,
    sender: &Sender,
) -> Result<(), Failure> {
    if !(1..=LAST_SIGNAL).contains(&spec.signal) {
        return Err(failure(
            FailureKind::Invalid,
            format!("no signal has the number {}", spec.signal),
        ));
    }
    let session = find(agent, spec.session)?;
    if let Some(code) = session.exit() {
        return Err(failure(
            FailureKind::SessionEnded,
            format!("exit status {code}"),
        ));
    }
    let ended = || failure(FailureKind::SessionEnded, "session has ended");
    session.group.signal(spec.signal).map_err(|_| ended())?;
    let pid = session.id.0;
    // A host that no longer listens does not stop what it asked for.
    let _ = reply(
        sender,
        Reply::Kill(KillEvent::Signal {
            signal: spec.signal,
            pid,
        }),
    )
    .await;
    let code = if spec.timeout_ms == 0 || HARMLESS.contains(&spec.signal) {
        None
    } else {
        Some(see_it_end(&session, Duration::from_millis(spec.timeout_ms), sender).await)
    };
    let _ = reply(sender, Reply::Kill(KillEvent::Complete { exit_code: code })).await;
    Ok(())
}

async fn see_it_end(session: &Session, within: Duration, sender: &Sender) -> u8 {
    let code = match tokio::time::timeout(within, session.ended()).await {
        Ok(code) => code,
        Err(_) => {
            let _ = reply(sender, Reply::Kill(KillEvent::Timeout)).await;
            // It may end by itself in this moment, which is as good.
            let _ = session.group.signal(libc::SIGKILL);
            let _ = reply(sender, Reply::Kill(KillEvent::Killed)).await;
            session.ended().await
        }
    };
    let _ = reply(sender, Reply::Kill(KillEvent::Exited)).await;
    code
}
