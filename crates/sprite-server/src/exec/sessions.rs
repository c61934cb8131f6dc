//! The sessions that run. Source: behaviour reference §1.4.5.

use sprite_agent_api::message::{self, Reply, Request, SessionInfo};
use sprite_api::Stamp;
use sprite_api::exec::Kept;
use sprite_api::session::{Session, SessionList};
use sprite_host::Sprite;
use sprite_types::SpriteStatus;

use super::open::Operation;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// How long after its last word a session that nobody is attached to counts as active.
const ACTIVE_FOR_MS: i64 = 10_000;

/// Asks the sprite's agent.
///
/// # Errors
/// The sprite does not wake, or its agent does not answer.
pub(crate) async fn list(app: &App, sprite: &Sprite) -> Answer<SessionList> {
    if sprite.status == SpriteStatus::Cold {
        // Sessions end with their machine: there is nothing to wake it for.
        return Ok(SessionList {
            count: 0,
            sessions: Vec::new(),
        });
    }
    match Operation::begin(app, sprite, &Request::Sessions).await?.1 {
        Reply::Sessions { sessions } => {
            let now = Stamp(time::OffsetDateTime::now_utc());
            let sessions: Vec<Session> = sessions.iter().map(|info| entry(info, now)).collect();
            Ok(SessionList {
                count: sessions.len(),
                sessions,
            })
        }
        Reply::Failed(failure) => Err(Problem::refused(failure, None)),
        Reply::Ready(_)
        | Reply::Started(_)
        | Reply::Exited { .. }
        | Reply::Kill(_)
        | Reply::Synced
        | Reply::Port(_) => Err(Problem::machine_lost("the machine answered something else")),
    }
}

fn entry(info: &SessionInfo, now: Stamp) -> Session {
    let now_ms = now.0.unix_timestamp_nanos() / 1_000_000;
    let silent_ms = now_ms - i128::from(info.last_activity_unix_ms);
    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    let bytes_per_second = info.bytes_per_second as f64;
    Session {
        id: info.session.to_string(),
        command: info.command.clone(),
        workdir: info.workdir.clone(),
        created: Stamp::from_unix_ms(info.created_unix_ms),
        bytes_per_second,
        is_active: info.attached > 0 || silent_ms < i128::from(ACTIVE_FOR_MS),
        last_activity: Stamp::from_unix_ms(info.last_activity_unix_ms),
        tty: info.tty,
        kept: kept(info.stdout, info.stderr),
    }
}

/// What is kept of a session's output, as clients are told.
pub(crate) fn kept(stdout: message::Kept, stderr: message::Kept) -> Kept {
    Kept {
        stdout_kept_from: stdout.from,
        stdout_total: stdout.total,
        stderr_kept_from: stderr.from,
        stderr_total: stderr.total,
    }
}
