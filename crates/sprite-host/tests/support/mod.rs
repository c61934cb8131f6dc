//! What the tests of the host share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use sprite_agent_api::FrameKind;
use sprite_agent_api::message::{ExecSpec, Reply, Request};
use sprite_host::{Awake, DestroyError, Disks, Host, ListQuery, LookupError, Sprite};
use sprite_machine::MachineDriver;
use sprite_testkit::{TestHost, eventually};
use sprite_types::{OrgId, SpriteId, SpriteName, SpriteStatus};

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub const SOON: Duration = Duration::from_secs(20);

/// A command without a terminal or input.
pub fn command(argv: &[&str]) -> Request {
    let argv: Vec<String> = argv.iter().map(|&argument| argument.to_owned()).collect();
    Request::Exec(ExecSpec {
        path: argv[0].clone(),
        argv,
        env: Vec::new(),
        dir: None,
        tty: None,
        stdin: false,
        max_run_after_disconnect_ms: None,
        ports: false,
    })
}

/// Runs a command to its end: its exit status and what it wrote. `None`: the stream broke.
pub async fn run(awake: &Awake, argv: &[&str]) -> Option<(u8, String)> {
    let mut stream = awake.open(&command(argv));
    let mut output = Vec::new();
    while let Ok(Some(frame)) = stream.receiver.recv().await {
        match frame.kind {
            FrameKind::Stdout | FrameKind::Stderr => output.extend_from_slice(&frame.payload),
            FrameKind::Control => match frame.message::<Reply>().expect("a reply") {
                Reply::Exited { code } => {
                    return Some((code, String::from_utf8_lossy(&output).into_owned()));
                }
                Reply::Started(_) => {}
                other => panic!("{other:?}"),
            },
            FrameKind::Stdin => panic!("stdin from an agent"),
        }
    }
    None
}

/// Waits until the sprite's row says that status.
pub async fn until_status(host: &Host, sprite: SpriteId, status: SpriteStatus) -> Sprite {
    eventually(SOON, async || match host.sprite_by_id(sprite).await {
        Ok(sprite) if sprite.status == status => ControlFlow::Break(sprite),
        other => ControlFlow::Continue(other.map(|sprite| (sprite.status, sprite.failure))),
    })
    .await
}

/// All sprites of the organisation.
pub async fn all(host: &Host, org: &OrgId) -> Vec<Sprite> {
    let query = ListQuery {
        limit: ListQuery::MOST,
        ..ListQuery::default()
    };
    host.list(org, query).await.expect("list sprites").sprites
}

/// Destroys the sprite that has the name now.
pub async fn destroy(host: &Host, org: &OrgId, name: &SpriteName) -> Result<(), DestroyError> {
    match host.sprite(org, name).await {
        Ok(sprite) => host.destroy(sprite.id).await,
        Err(LookupError::NotFound) => Err(DestroyError::NotFound),
        Err(LookupError::Catalog(error)) => panic!("{error}"),
    }
}

/// Waits until rows, machines and disks agree, and nothing is under way.
pub async fn until_in_agreement(test: &TestHost) {
    eventually(SOON, async || match disagreement(test).await {
        None => ControlFlow::Break(()),
        Some(text) => ControlFlow::Continue(text),
    })
    .await;
    test.driver.assert_sound();
}

async fn disagreement(test: &TestHost) -> Option<String> {
    // Whoever is being created or destroyed has a task, and no machine for long. Looked at first: what is under
    // way then may be done when the rest is looked at.
    let active = test.host.active();
    let sprites = all(&test.host, &test.principal.org).await;
    let rows: BTreeSet<SpriteId> = sprites.iter().map(|sprite| sprite.id).collect();
    let disks: BTreeSet<SpriteId> = test
        .disks
        .list()
        .await
        .expect("list disks")
        .into_iter()
        .collect();
    if rows != disks {
        return Some(format!("rows {rows:?}, disks {disks:?}"));
    }
    let mut expected = BTreeSet::new();
    for sprite in &sprites {
        let machine = test.driver.machine_of(sprite.id);
        let as_told = match sprite.status {
            SpriteStatus::Running => machine
                .as_ref()
                .is_some_and(|machine| !machine.is_frozen() && !machine.has_ended()),
            SpriteStatus::Warm if test.driver.keeps_snapshots() => {
                if machine.is_some() {
                    return Some(format!("{} sleeps beside a machine", sprite.name));
                }
                continue;
            }
            SpriteStatus::Warm => machine.as_ref().is_some_and(|machine| machine.is_frozen()),
            SpriteStatus::Cold => machine.is_none(),
        };
        let id = machine.as_ref().map(|machine| machine.identity().machine);
        if !as_told || id != sprite.machine {
            return Some(format!(
                "{} is {}, its machine {id:?}",
                sprite.name, sprite.status
            ));
        }
        expected.extend(id);
    }
    let machines: BTreeSet<_> = test
        .driver
        .machines()
        .iter()
        .map(|machine| machine.identity().machine)
        .collect();
    if machines != expected {
        return Some(format!("machines {machines:?}, expected {expected:?}"));
    }
    if active != expected.len() {
        return Some(format!("{active} tasks, {} machines", expected.len()));
    }
    None
}
