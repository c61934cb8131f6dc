//! Waking a sprite: booting a machine, or thawing the one it has. Its memory is loaded in [`crate::load`].
//!
//! Boot: put a checkpoint on the disk, if one is to be restored → announce (commit: running, next incarnation, the machine's id) → start → clock → environment → awake.
//! Thaw: announce → thaw → awake.
//! The announcement is durable before anything runs. If a boot fails after it, the machine is ended and the row
//! goes back to cold; if the process dies, the next start finds the machine, or none, and does the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sprite_agent_api::message::{EnvironmentSpec, Request};
use sprite_agent_api::policy::PolicySpec;
use sprite_lifecycle::{Fault, Left};
use sprite_machine::{Beginning, Identity, Machine, MachineError, MachineSpec};
use sprite_types::{DriverKind, Egress, MachineId, Resources};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::agent;
use crate::checkpoints;
use crate::context::{Context, as_before, describe};
use crate::enforce::{self, EnforceError};
use crate::fault::FaultPoint;
use crate::services;

/// How often a machine is ended that is not wanted: six seconds, all in all.
const END_ATTEMPTS: u32 = 7;
const END_AGAIN: Duration = Duration::from_millis(100);

/// Boots a machine.
pub(crate) async fn boot(ctx: &mut Context) -> Result<(), Fault> {
    let shared = ctx.shared.clone();
    check_driver(ctx)?;
    let turn = shared.boots.acquire().await;
    debug_assert!(turn.is_ok(), "nobody closes it");
    if let Err(fault) = checkpoints::carry_out(ctx).await {
        return Err(match ctx.announced() {
            Some(_) => undo(ctx, fault.cause).await,
            None => fault,
        });
    }
    announce(ctx).await?;
    ctx.life += 1;
    ctx.fault(FaultPoint::WakeCommitted).await;
    let machine = boot_announced(ctx).await?;
    ctx.machine = Some(machine.clone());
    ctx.fault(FaultPoint::WakeStarted).await;
    if let Err(error) = begin(ctx, &machine).await {
        let cause = describe("build the environment", &error);
        return Err(undo(ctx, cause).await);
    }
    ctx.fault(FaultPoint::WakeReady).await;
    Ok(())
}

/// A sprite keeps the driver that it was created with: another would meet a disk that it must not mount.
pub(crate) fn check_driver(ctx: &Context) -> Result<(), Fault> {
    let (theirs, ours) = (ctx.sprite.driver, ctx.shared.driver.kind());
    if theirs == ours {
        return Ok(());
    }
    let cause = format!("sprite was created with driver {theirs}; this server runs driver {ours}");
    Err(Fault {
        cause,
        left: Left::AsBefore,
    })
}

async fn announce(ctx: &mut Context) -> Result<(), Fault> {
    const STEP: &str = "announce the machine";
    ctx.refresh()
        .await
        .map_err(|error| as_before(STEP, &error))?;
    match ctx.announced() {
        Some(_) => Ok(()),
        None => leave_rest(ctx, MachineId::random(), STEP).await,
    }
}

/// Commits that the machine is about to run. A commit that failed may have happened all the same.
async fn leave_rest(
    ctx: &mut Context,
    machine: MachineId,
    step: &'static str,
) -> Result<(), Fault> {
    let Err(error) = ctx.leave_rest(machine).await else {
        return Ok(());
    };
    match ctx.be_certain().await {
        Ok(()) if ctx.announced() == Some(machine) => Ok(()),
        Ok(()) | Err(_) => Err(as_before(step, &error)),
    }
}

/// Starts the announced machine.
async fn boot_announced(ctx: &mut Context) -> Result<Arc<dyn Machine>, Fault> {
    let identity = Identity {
        sprite: ctx.sprite.id,
        machine: ctx
            .announced()
            .expect("the machine is announced before it is started"),
        incarnation: ctx.sprite.incarnation,
        generation: ctx.sprite.generation,
    };
    match start(ctx, identity, Beginning::Boot).await {
        Ok(machine) => Ok(machine),
        // The driver leaves nothing of a machine that it could not start.
        Err(StartError::Driver(error)) => {
            Err(undo(ctx, describe("start the machine", &error)).await)
        }
        Err(StartError::Late(fault)) => Err(fault),
    }
}

/// Why there is no machine.
pub(crate) enum StartError {
    /// The driver could not; nothing is left.
    Driver(MachineError),
    /// The driver did not keep its own deadlines; there may be a machine yet.
    Late(Fault),
}

/// Starts a machine. The driver has deadlines of its own; one that does not keep them leaves a sprite that nothing
/// is done with until its start has ended after all.
pub(crate) async fn start(
    ctx: &mut Context,
    identity: Identity,
    beginning: Beginning,
) -> Result<Arc<dyn Machine>, StartError> {
    let snapshots = snapshots(ctx).await.map_err(StartError::Driver)?;
    // Read last: what is stored after this is put in force when this operation has ended.
    let (egress, resources) = walls(ctx).await.map_err(StartError::Driver)?;
    let spec = MachineSpec {
        identity,
        disk: ctx.shared.disks.path(ctx.sprite.id),
        resources,
        egress,
        snapshots,
        beginning,
    };
    let (answer, mut started) = oneshot::channel();
    let driver = ctx.shared.driver.clone();
    let ended = CancellationToken::new();
    let over = ended.clone();
    let start = async move {
        let started = driver.start(spec).await;
        // Nobody waits for it any more: it must not run.
        if let Err(Ok(late)) = answer.send(started)
            && let Err(error) = end_for_certain(&late).await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "end a machine that came too late"
            );
            return;
        }
        over.cancel();
    };
    ctx.shared.spawn(start.in_current_span());
    match in_time(&mut started, ctx.shared.options.boot_within).await {
        Some(answer) => answer.map_err(StartError::Driver),
        None => {
            ctx.unfinished = Some(ended);
            let within = ctx.shared.options.boot_within;
            let cause = format!("start the machine: not done after {within:?}");
            ctx.record_failure(&cause).await;
            Err(StartError::Late(Fault {
                cause,
                left: Left::Unknown,
            }))
        }
    }
}

/// Ends a machine that is there and not wanted. Tried more than once: as long as it is there nothing can be done with
/// its sprite.
pub(crate) async fn end_for_certain(machine: &Arc<dyn Machine>) -> Result<(), MachineError> {
    let mut pause = END_AGAIN;
    for _ in 1..END_ATTEMPTS {
        match machine.destroy().await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a machine could not be ended, and is ended again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    machine.destroy().await
}

/// A start that did not end in time, and has not ended yet.
#[derive(Debug, thiserror::Error)]
#[error("an earlier start has not ended yet")]
pub(crate) struct Unfinished;

/// Waits until nothing is left of a start that did not end in time.
pub(crate) async fn end_unfinished(ctx: &mut Context) -> Result<(), Unfinished> {
    if let Some(ended) = &ctx.unfinished {
        let within = ctx.shared.options.stop_within;
        let ended = tokio::time::timeout(within, ended.cancelled()).await;
        ended.map_err(|_| Unfinished)?;
        ctx.unfinished = None;
    }
    Ok(())
}

/// What stands around the machine, as the policies say.
async fn walls(ctx: &Context) -> Result<(Egress, Resources), MachineError> {
    let read = |error: Box<dyn std::error::Error + Send + Sync>| MachineError::Step {
        step: "read the policies".to_owned(),
        source: std::io::Error::other(error),
    };
    let policies = ctx.shared.catalog.policies(ctx.sprite.id).await;
    let policies = policies.map_err(|error| read(error.into()))?;
    let resources = enforce::sizes(&ctx.sprite, &policies).map_err(|error| read(error.into()))?;
    Ok((policies.network.egress(), resources))
}

async fn snapshots(ctx: &Context) -> Result<Option<PathBuf>, MachineError> {
    if !ctx.shared.driver.keeps_snapshots() {
        return Ok(None);
    }
    match ctx.shared.disks.snapshots(ctx.sprite.id).await {
        Ok(directory) => Ok(Some(directory)),
        Err(error) => Err(MachineError::Step {
            step: "find the place for snapshots".to_owned(),
            source: std::io::Error::other(error),
        }),
    }
}

/// What the driver answered within the time; afterwards an answer goes back to who gave it.
async fn in_time(started: &mut oneshot::Receiver<Started>, within: Duration) -> Option<Started> {
    match tokio::time::timeout(within, &mut *started).await {
        Ok(answer) => answer.ok(),
        Err(_) => {
            started.close();
            started.try_recv().ok()
        }
    }
}

type Started = Result<Arc<dyn Machine>, MachineError>;

/// Makes a machine that has just started this sprite's. One with a kernel of its own may have begun with the memory
/// that others began with too.
async fn begin(ctx: &Context, machine: &Arc<dyn Machine>) -> Result<(), EnforceError> {
    match ctx.shared.driver.kind() {
        DriverKind::Microvm => set_clock(ctx, machine).await?,
        DriverKind::Container => {}
    }
    prepare(ctx, machine, Fresh::Yes).await
}

/// Tells a machine with a kernel of its own the time, and with it that its memory may be old, or others' too.
pub(crate) async fn set_clock(
    ctx: &Context,
    machine: &Arc<dyn Machine>,
) -> Result<(), EnforceError> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let clock = Request::Clock {
        unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
    };
    let within = ctx.shared.options.boot_within;
    agent::ask(machine, ctx.shared.epoch, &clock, within).await?;
    Ok(())
}

/// Builds the environment, or sees that it stands.
pub(crate) async fn prepare(
    ctx: &Context,
    machine: &Arc<dyn Machine>,
    agent: Fresh,
) -> Result<(), EnforceError> {
    let environment = &ctx.sprite.environment;
    let spec = EnvironmentSpec {
        hostname: ctx.sprite.name.to_string(),
        env: environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        nameservers: ctx.shared.options.nameservers.clone(),
    };
    let within = ctx.shared.options.boot_within;
    agent::ask(machine, ctx.shared.epoch, &Request::Start(spec), within).await?;
    let policies = ctx.shared.catalog.policies(ctx.sprite.id).await?;
    let told = match agent {
        Fresh::Yes => enforce::spec(&ctx.sprite, &policies)? == PolicySpec::default(),
        Fresh::No => false,
    };
    if !told {
        enforce::tell(&ctx.shared, &ctx.sprite, machine, &policies).await?;
    }
    ctx.untold.set(false);
    services::tell(&ctx.shared, &ctx.sprite, machine).await
}

/// Whether an agent has just begun, and so has the default policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    Yes,
    No,
}

/// Ends the machine of a wake that failed, if there is one, and takes the announcement back.
pub(crate) async fn undo(ctx: &mut Context, cause: String) -> Fault {
    if let Some(machine) = ctx.machine.clone() {
        ctx.keep_usage().await;
        if let Err(error) = machine.destroy().await {
            let cause = format!("{cause}; then {}", describe("end the machine", &error));
            tracing::error!(cause, "a machine is left that cannot be removed");
            ctx.record_failure(&cause).await;
            return Fault {
                cause,
                left: Left::Unknown,
            };
        }
        ctx.machine = None;
    }
    tracing::warn!(cause, "wake failed");
    let left = match ctx.enter_cold(Some(&cause)).await {
        Ok(()) => Left::NoMachine,
        Err(error) => {
            // The row goes on to announce a machine that does not exist; a boot that comes first takes it up.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "take an announcement back"
            );
            Left::Unrecorded
        }
    };
    Fault { cause, left }
}

/// Lets the frozen machine run on.
pub(crate) async fn thaw(ctx: &mut Context) -> Result<(), Fault> {
    const STEP: &str = "announce the thaw";
    let machine = ctx.machine.clone().expect("a warm sprite has a machine");
    ctx.refresh()
        .await
        .map_err(|error| as_before(STEP, &error))?;
    if ctx.announced().is_none() {
        leave_rest(ctx, machine.identity().machine, STEP).await?;
    }
    ctx.fault(FaultPoint::ThawCommitted).await;
    if let Err(error) = machine.thaw().await {
        let fault = as_before("thaw the machine", &error);
        tracing::warn!(cause = fault.cause, "wake failed");
        if let Err(error) = ctx.be_warm().await {
            // The row goes on to announce a machine that runs; the next thaw takes that up.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "take an announcement back"
            );
        }
        return Err(fault);
    }
    if ctx.untold.get() {
        let told = async {
            let policies = ctx.shared.catalog.policies(ctx.sprite.id).await?;
            enforce::tell(&ctx.shared, &ctx.sprite, &machine, &policies).await
        };
        if let Err(error) = told.await {
            return Err(undo(ctx, describe("tell the agent its policies", &error)).await);
        }
        ctx.untold.set(false);
    }
    ctx.fault(FaultPoint::Thawed).await;
    Ok(())
}
