//! Services outlive the host: what was stored is told to every machine that begins or is taken over.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sprite_agent_api::services::ServicesCall;
use sprite_host::{
    Asker, FaultPoint, Faults, HostOptions, HttpTarget, ServiceChange, ServiceError,
};
use sprite_testkit::TestHost;
use sprite_types::{ServiceName, ServiceRun, ServiceSpec, SpriteId, SpriteStatus};
use support::until_status;

fn name(text: &str) -> ServiceName {
    text.parse().expect("a legal name")
}

fn spec(needs: &[&str], port: Option<u16>) -> ServiceSpec {
    ServiceSpec {
        cmd: "serve".to_owned(),
        args: Vec::new(),
        env: BTreeMap::new(),
        dir: None,
        needs: needs.iter().map(|need| name(need)).collect(),
        http_port: port.and_then(std::num::NonZeroU16::new),
    }
}

async fn put(test: &TestHost, sprite: SpriteId, service: &str, spec: ServiceSpec) {
    let change = ServiceChange::Put(name(service), spec);
    let changed = test
        .host
        .change_service(sprite, change, ServicesCall::Apply, Asker::Outside);
    changed.await.expect("a service");
}

async fn stop(test: &TestHost, sprite: SpriteId, service: &str) {
    let change = ServiceChange::Stop(name(service));
    let call = ServicesCall::Stop {
        name: name(service),
        timeout_ms: 0,
    };
    let changed = test
        .host
        .change_service(sprite, change, call, Asker::Outside);
    changed.await.expect("it is stopped");
}

fn running(test: &TestHost, sprite: SpriteId) -> Vec<(String, u32)> {
    let machine = test.driver.machine_of(sprite).expect("it runs");
    machine.services()
}

fn names(running: &[(String, u32)]) -> Vec<&str> {
    running.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn services_start_with_the_machine_and_a_persons_stop_sticks() {
    let mut test = TestHost::new().await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, "db", spec(&[], None)).await;
    put(&test, sprite, "web", spec(&["db"], None)).await;
    put(&test, sprite, "job", spec(&[], None)).await;
    assert_eq!(names(&running(&test, sprite)), ["db", "job", "web"]);
    stop(&test, sprite, "job").await;
    test.host.close().await;
    test.reopen(TestHost::options()).await.expect("reopen");
    drop(test.host.awake(sprite).await.expect("awake"));
    assert_eq!(names(&running(&test, sprite)), ["db", "web"]);
    test.host.restart(sprite).await.expect("restart");
    assert_eq!(names(&running(&test, sprite)), ["db", "web"]);
}

/// Starting one starts those that it needs, also after a person stopped them.
#[tokio::test]
async fn who_is_needed_is_started_too() {
    let test = TestHost::new().await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, "db", spec(&[], None)).await;
    put(&test, sprite, "web", spec(&["db"], None)).await;
    for service in ["web", "db"] {
        stop(&test, sprite, service).await;
    }
    assert_eq!(running(&test, sprite), []);
    let change = ServiceChange::Start(name("web"));
    let started = test
        .host
        .change_service(sprite, change, ServicesCall::Apply, Asker::Outside);
    started.await.expect("it is started");
    assert_eq!(names(&running(&test, sprite)), ["db", "web"]);
}

#[tokio::test]
async fn a_machine_that_is_adopted_keeps_its_processes() {
    let mut test = TestHost::new().await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, "web", spec(&[], None)).await;
    let before = running(&test, sprite);
    test.reopen(TestHost::options()).await.expect("reopen");
    drop(test.host.awake(sprite).await.expect("awake"));
    assert_eq!(running(&test, sprite), before);
}

/// Stored, and the host killed before the agent knew: the next start tells.
#[tokio::test]
async fn what_was_stored_before_a_crash_is_told_by_the_next_start() {
    let armed = Arc::new(AtomicBool::new(false));
    let asked = armed.clone();
    let options = HostOptions {
        faults: Faults::asking(move |point| {
            point == FaultPoint::ServiceStored && asked.load(Ordering::Relaxed)
        }),
        ..TestHost::options()
    };
    let mut test = TestHost::with(options).await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, "web", spec(&[], None)).await;
    armed.store(true, Ordering::Relaxed);
    let change = ServiceChange::Put(name("late"), spec(&[], None));
    let put = test
        .host
        .change_service(sprite, change, ServicesCall::Apply, Asker::Outside);
    let cut_off = tokio::time::timeout(Duration::from_millis(300), put).await;
    assert!(cut_off.is_err(), "it was not acknowledged");
    assert_eq!(names(&running(&test, sprite)), ["web"]);
    let before = running(&test, sprite);
    test.reopen(TestHost::options()).await.expect("reopen");
    drop(test.host.awake(sprite).await.expect("awake"));
    let now = running(&test, sprite);
    assert_eq!(names(&now), ["late", "web"]);
    assert!(now.contains(&before[0]), "the other one goes on");
}

/// Quiet services hold nothing, and a sprite that never had any is told nothing.
#[tokio::test]
async fn a_service_keeps_nobody_awake() {
    let options = HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..TestHost::options()
    };
    let test = TestHost::with(options).await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, "web", spec(&[], None)).await;
    // Nor does a program inside that asks for them all the time.
    let mut asked = 0;
    while let Ok(telling) = test
        .host
        .ask_services(sprite, ServicesCall::States, Asker::Inside)
        .await
    {
        drop(telling);
        asked += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asked > 0, "it ran at first");
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    drop(test.host.awake(sprite).await.expect("awake"));
    assert_eq!(names(&running(&test, sprite)), ["web"]);
    let bare = test.create("bare").await.id;
    drop(test.host.awake(bare).await.expect("awake"));
    let machine = test.driver.machine_of(bare).expect("it runs");
    assert_eq!(machine.services_told(), 0);
}

#[tokio::test]
async fn the_url_leads_to_the_service_with_the_port_and_a_visitor_undoes_no_stop() {
    let test = TestHost::new().await;
    let sprite = test.create("s").await.id;
    let target = async || test.host.http_target(sprite).await.expect("the catalog");
    let nobody = HttpTarget {
        port: 8080,
        service: None,
    };
    assert_eq!(target().await, nobody);
    put(&test, sprite, "db", spec(&[], None)).await;
    assert_eq!(target().await, nobody);
    put(&test, sprite, "web", spec(&[], Some(3000))).await;
    let web = Some(name("web"));
    assert_eq!(
        target().await,
        HttpTarget {
            port: 3000,
            service: web
        }
    );
    let within = Duration::from_secs(5);
    let demanded = test.host.demand_service(sprite, &name("web"), within).await;
    demanded.expect("it listens");
    stop(&test, sprite, "web").await;
    assert_eq!(
        target().await,
        HttpTarget {
            port: 3000,
            service: None
        }
    );
    let demanded = test.host.demand_service(sprite, &name("web"), within).await;
    assert!(
        matches!(demanded, Err(ServiceError::Refused(_))),
        "{demanded:?}"
    );
    let services = test
        .host
        .services(sprite)
        .await
        .expect("the catalog")
        .services
        .clone();
    let run = services.iter().map(|service| service.run);
    assert_eq!(
        run.collect::<Vec<_>>(),
        [ServiceRun::Started, ServiceRun::Stopped]
    );
}

#[tokio::test]
async fn services_go_with_their_sprite() {
    let test = TestHost::new().await;
    let row = test.create("s").await;
    put(&test, row.id, "web", spec(&[], None)).await;
    test.host.destroy(row.id).await.expect("destroy");
    let services = test.host.services(row.id).await.expect("the catalog");
    assert_eq!((services.revision, services.services.len()), (0, 0));
}
