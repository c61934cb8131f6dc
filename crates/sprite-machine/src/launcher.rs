//! Starts the agent's program as root of the host, in the role that builds walls and becomes a machine's first
//! process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use sprite_agent_api::launch::LaunchReport;
use sprite_agent_api::wire;

use crate::MachineError;
use crate::failure::step;
use crate::process::ProcessMark;

/// Longer than the launcher's own deadline: it ends by itself, and tells what it was doing.
const LAUNCH_WITHIN: Duration = Duration::from_secs(75);

/// A launcher that is to be started.
pub(crate) struct Launcher<'a> {
    /// The agent's program.
    pub(crate) program: &'a Path,
    /// Its role.
    pub(crate) role: &'static str,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl Launcher<'_> {
    /// Starts it, tells it the spec, and waits for the machine's first process. `last_words` are what it wrote, for
    /// the case that it ended without a report.
    pub(crate) async fn run<S: Serialize>(
        self,
        spec: &S,
        fds: &[BorrowedFd<'_>],
        last_words: impl Fn() -> String,
    ) -> Result<ProcessMark, MachineError> {
        let (ours, theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
        let mut launcher = Command::new(self.program)
            .arg(self.role)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(self.stdout)
            .stderr(self.stderr)
            .spawn()
            .map_err(step("start the launcher"))?;
        // Small enough for the socket's buffer, which is empty: this does not block.
        wire::send(&ours, spec, fds).map_err(step("tell the launcher"))?;
        let report = report(
            ours.try_clone()
                .map_err(step("keep the launcher's socket"))?,
        );
        let report = tokio::time::timeout(LAUNCH_WITHIN, report).await;
        let mark = match report {
            Ok(Ok(Some(report))) => mark(report, &last_words),
            Ok(Ok(None)) => Err(step("build the machine")(io::Error::other(last_words()))),
            Ok(Err(error)) => Err(step("hear of the launcher")(error)),
            Err(_) => Err(MachineError::Timeout {
                step: "build the machine".to_owned(),
                seconds: LAUNCH_WITHIN.as_secs(),
            }),
        };
        // The launcher keeps the process id from being used again until now.
        drop(ours);
        if mark.is_err() {
            // It may hang in the kernel; its group is killed by the caller's undoing too.
            let _ = launcher.kill();
        }
        let reaped = tokio::task::spawn_blocking(move || launcher.wait()).await;
        reaped
            .map_err(io::Error::other)
            .flatten()
            .map_err(step("wait for the launcher"))?;
        mark
    }
}

fn mark(
    report: LaunchReport,
    last_words: &impl Fn() -> String,
) -> Result<ProcessMark, MachineError> {
    match report {
        LaunchReport::Started { pid } => {
            ProcessMark::of(pid).map_err(step("look at the machine's process"))
        }
        LaunchReport::Failed {
            step: failed,
            errno,
        } => Err(MachineError::Step {
            step: failed,
            source: errno.map_or_else(
                || io::Error::other(last_words()),
                io::Error::from_raw_os_error,
            ),
        }),
    }
}

/// The launcher's one report; `None` if it ended without.
async fn report(socket: UnixStream) -> io::Result<Option<LaunchReport>> {
    tokio::task::spawn_blocking(move || {
        let got = wire::receive::<LaunchReport>(&socket);
        got.map(|got| got.map(|(report, _)| report))
    })
    .await
    .map_err(io::Error::other)?
}
