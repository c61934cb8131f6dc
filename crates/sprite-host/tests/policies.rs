//! Policies: a policy that was accepted holds, whatever happens to machine and host.

mod support;

use std::sync::Arc;
use std::time::Duration;

use sprite_host::{FaultPoint, Faults, HostOptions, Policy, PolicyError, Sprite};
use sprite_testkit::{FakeMachine, Step, TestHost};
use sprite_types::{
    Confinement, CountLimit, DriverKind, Egress, MemoryLimit, NetworkPolicy, NetworkRule, Preset,
    Privileges, Profile, ResourceLimits, SpriteStatus,
};
use support::{run, until_in_agreement, until_status};
use tokio::sync::Notify;

fn closed() -> Policy {
    Policy::Network(NetworkPolicy {
        rules: vec![NetworkRule::Include {
            include: Preset::Defaults,
        }],
    })
}

fn open() -> Policy {
    Policy::Network(NetworkPolicy::default())
}

fn minimal() -> Policy {
    Policy::Privileges(Privileges {
        profile: Profile::Minimal,
        ..Privileges::default()
    })
}

fn small() -> ResourceLimits {
    ResourceLimits {
        memory: Some(MemoryLimit {
            limit_mb: 256,
            autoscale: true,
        }),
        cpu: None,
        pids: Some(CountLimit { limit: 100 }),
    }
}

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        ..TestHost::options()
    }
}

fn machine(test: &TestHost, sprite: &Sprite) -> Arc<FakeMachine> {
    test.driver.machine_of(sprite.id).expect("there is one")
}

fn egress(test: &TestHost, sprite: &Sprite) -> Egress {
    machine(test, sprite).walls().0
}

async fn awake(test: &TestHost, sprite: &Sprite) {
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
}

async fn set(test: &TestHost, sprite: &Sprite, policy: Policy) {
    let set = test.host.set_policy(sprite, policy).await;
    set.expect("set the policy");
}

#[tokio::test]
async fn a_machine_that_runs_is_closed_and_opened_and_the_others_are_not() {
    let test = TestHost::new().await;
    let (one, other) = (test.create("one").await, test.create("other").await);
    awake(&test, &one).await;
    awake(&test, &other).await;
    assert_eq!(egress(&test, &one), Egress::Open);
    set(&test, &one, closed()).await;
    assert_eq!(egress(&test, &one), Egress::Closed);
    assert_eq!(egress(&test, &other), Egress::Open);
    set(&test, &one, open()).await;
    assert_eq!(egress(&test, &one), Egress::Open);
}

#[tokio::test]
async fn every_later_machine_is_closed_from_its_first_step() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    set(&test, &sprite, closed()).await;
    // If it were closed after its start, this would end the start.
    test.driver.fail(Step::Egress, u32::MAX);
    test.host.restart(sprite.id).await.expect("restart");
    assert_eq!(egress(&test, &sprite), Egress::Closed);
    test.driver.fail(Step::Egress, 0);
    test.host.close().await;
    test.reopen(TestHost::options()).await.expect("reopen");
    awake(&test, &sprite).await;
    assert_eq!(egress(&test, &sprite), Egress::Closed);
}

#[tokio::test]
async fn what_is_stored_while_a_machine_starts_is_in_force_when_it_is_answered() {
    let test = TestHost::new().await;
    let held = test.driver.hold(Step::Environment);
    let sprite = test.create("one").await;
    let (host, of) = (test.host.clone(), sprite.clone());
    let setting = tokio::spawn(async move { host.set_policy(&of, closed()).await });
    // Until it is stored; the machine may have been started before.
    sprite_testkit::eventually(support::SOON, async || {
        let view = test.host.policies(&sprite).await.expect("read");
        match view.policies.network.egress() {
            Egress::Closed => std::ops::ControlFlow::Break(()),
            Egress::Open => std::ops::ControlFlow::Continue("not stored"),
        }
    })
    .await;
    assert!(!setting.is_finished(), "nothing is answered before");
    drop(held);
    setting.await.expect("joined").expect("set");
    assert_eq!(egress(&test, &sprite), Egress::Closed);
}

#[tokio::test]
async fn a_machine_that_cannot_be_closed_is_ended_and_the_next_one_is_closed() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    test.driver.fail(Step::Egress, 1);
    let refused = test.host.set_policy(&sprite, closed()).await;
    assert!(
        matches!(refused, Err(PolicyError::NotInForce { ended: true, .. })),
        "{refused:?}"
    );
    until_status(&test.host, sprite.id, SpriteStatus::Cold).await;
    awake(&test, &sprite).await;
    assert_eq!(egress(&test, &sprite), Egress::Closed);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_frozen_machine_is_closed_as_it_stands_and_its_agent_told_when_it_goes_on() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    set(&test, &sprite, closed()).await;
    set(&test, &sprite, minimal()).await;
    let frozen = machine(&test, &sprite);
    assert!(frozen.is_frozen(), "it was not woken");
    assert_eq!(frozen.walls().0, Egress::Closed);
    assert_eq!(frozen.policy(), None);
    awake(&test, &sprite).await;
    let told = machine(&test, &sprite).policy().expect("told");
    assert_eq!(told.confinement, Confinement::NoCapabilities);
    assert!(
        told.network.contains(r#""enforcement":"closed""#),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_sprite_whose_memory_is_on_disk_wakes_closed_and_limited() {
    let test = TestHost::with(sleepy()).await;
    test.driver.pretend(DriverKind::Microvm);
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    until_in_agreement(&test).await;
    for policy in [closed(), minimal(), Policy::Resources(small())] {
        set(&test, &sprite, policy).await;
    }
    assert_eq!(test.host.active(), 0, "it was not woken");
    awake(&test, &sprite).await;
    let machine = machine(&test, &sprite);
    let (egress, resources) = machine.walls();
    assert_eq!((egress, resources.pids), (Egress::Closed, 100));
    let told = machine.policy().expect("told");
    let limits = told.limits.expect("limits within the machine");
    assert_eq!((limits.memory_mib, limits.pids), (256, 100));
    // Taken back, the agent's memory of them is taken back too.
    for policy in [
        open(),
        Policy::Privileges(Privileges::default()),
        Policy::Resources(ResourceLimits::default()),
    ] {
        set(&test, &sprite, policy).await;
    }
    awake(&test, &sprite).await;
    let machine = test.driver.machine_of(sprite.id).expect("runs");
    assert_eq!(machine.policy().map(|told| told.limits), Some(None));
}

#[tokio::test]
async fn limits_change_at_once_and_what_holds_is_told() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let view = test.host.policies(&sprite).await.expect("read");
    assert_eq!(view.wanted, sprite.resources);
    awake(&test, &sprite).await;
    set(&test, &sprite, Policy::Resources(small())).await;
    let view = test.host.policies(&sprite).await.expect("read");
    assert_eq!((view.wanted.memory_mib, view.wanted.pids), (256, 100));
    assert_eq!(view.wanted.cpus, sprite.resources.cpus);
    assert_eq!(view.allowed, Some(view.wanted));
    let refused = ResourceLimits {
        pids: Some(CountLimit { limit: 1 }),
        ..small()
    };
    let refused = test
        .host
        .set_policy(&sprite, Policy::Resources(refused))
        .await;
    assert!(matches!(refused, Err(PolicyError::Limit(_))), "{refused:?}");
    let after = test.host.policies(&sprite).await.expect("read");
    assert_eq!(after, view, "nothing was changed");
}

#[tokio::test]
async fn what_the_agent_cannot_hold_ends_the_machine() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    test.driver.fail(Step::Policy, 1);
    let refused = test.host.set_policy(&sprite, minimal()).await;
    assert!(
        matches!(refused, Err(PolicyError::NotInForce { ended: true, .. })),
        "{refused:?}"
    );
    until_status(&test.host, sprite.id, SpriteStatus::Cold).await;
    awake(&test, &sprite).await;
    let told = machine(&test, &sprite).policy().expect("told");
    assert_eq!(told.confinement, Confinement::NoCapabilities);
}

#[tokio::test]
async fn what_was_stored_when_the_host_was_killed_holds_before_the_next_answers() {
    for frozen in [false, true] {
        for point in [FaultPoint::PolicyStored, FaultPoint::PolicyEnforced] {
            let stopped = Arc::new(Notify::new());
            let told = stopped.clone();
            let faults = Faults::asking(move |passed| {
                let stop = passed == point;
                if stop {
                    told.notify_one();
                }
                stop
            });
            let options = |faults| HostOptions {
                faults,
                idle_timeout: frozen.then(|| Duration::from_millis(10)),
                ..TestHost::options()
            };
            let mut test = TestHost::with(options(faults)).await;
            let sprite = test.create("one").await;
            awake(&test, &sprite).await;
            if frozen {
                until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
            }
            let before = machine(&test, &sprite).identity().machine;
            let (host, of) = (test.host.clone(), sprite.clone());
            let setting = tokio::spawn(async move { host.set_policy(&of, closed()).await });
            stopped.notified().await;
            test.reopen(options(Faults::default()))
                .await
                .expect("reopen");
            let told = setting.await.expect("joined");
            assert!(matches!(told, Err(PolicyError::Closing)), "{told:?}");
            let now = machine(&test, &sprite);
            assert_eq!(now.identity().machine, before, "it goes on");
            assert_eq!(now.walls().0, Egress::Closed, "{point:?}, frozen: {frozen}");
            awake(&test, &sprite).await;
            let told = machine(&test, &sprite).policy().expect("told");
            assert!(told.network.contains("closed"), "{told:?}");
            until_in_agreement(&test).await;
        }
    }
}

#[tokio::test]
async fn an_adopted_machine_that_cannot_be_closed_is_ended() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    awake(&test, &sprite).await;
    set(&test, &sprite, closed()).await;
    let before = machine(&test, &sprite).identity().machine;
    test.host.clone().kill().await;
    test.driver.fail(Step::Egress, 1);
    test.reopen(TestHost::options()).await.expect("reopen");
    awake(&test, &sprite).await;
    let now = machine(&test, &sprite);
    assert_ne!(now.identity().machine, before);
    assert_eq!(now.walls().0, Egress::Closed);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn privileges_that_the_walls_do_not_give_are_refused() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let privileged = Privileges {
        profile: Profile::Privileged,
        ..Privileges::default()
    };
    let refused = test
        .host
        .set_policy(&sprite, Policy::Privileges(privileged));
    let refused = refused.await;
    assert!(
        matches!(refused, Err(PolicyError::Privileged { .. })),
        "{refused:?}"
    );
    let view = test.host.policies(&sprite).await.expect("read");
    assert_eq!(view.policies.privileges, Privileges::default());
}

#[tokio::test]
async fn the_policies_of_a_sprite_that_is_gone_cannot_be_set() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let destroyed = test.host.destroy(sprite.id);
    destroyed.await.expect("destroy");
    let refused = test.host.set_policy(&sprite, closed()).await;
    assert!(matches!(refused, Err(PolicyError::NotFound)), "{refused:?}");
}
