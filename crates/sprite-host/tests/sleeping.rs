//! A sprite that sleeps on disk alone costs a row and files: no task, no descriptor, nothing at a start.
//!
//! `SLEEPING=100000` tries it with so many, and prints what it takes.

mod support;

use std::time::{Duration, Instant};

use sprite_host::{HostOptions, ListQuery};
use sprite_testkit::TestHost;
use sprite_types::{DriverKind, SpriteStatus};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use support::until_in_agreement;

/// As many rows like that of the sprite `pattern`, half of them warm and half of them cold.
const COPIES: &str = "INSERT INTO sprites (id, org_id, name, driver, image, generation, incarnation, status, \
     machine_id, labels, url_auth, private_access, cpus, memory_mib, storage_gb, pids, environment, created_at, \
     updated_at) \
     WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) \
     SELECT printf('sprite-%08x-0000-4000-8000-%012x', i, i), org_id, printf('s-%06d', i), driver, image, 1, 1, \
     CASE i % 2 WHEN 0 THEN 'warm' ELSE 'cold' END, \
     CASE i % 2 WHEN 0 THEN printf('machine-%08x-0000-4000-8000-%012x', i, i) END, labels, url_auth, \
     private_access, cpus, memory_mib, storage_gb, pids, environment, created_at, updated_at \
     FROM sprites, n WHERE name = 'pattern'";

/// What a start with many that sleep took.
#[derive(Debug)]
#[expect(dead_code, reason = "times are printed, and mean nothing here")]
struct Cost {
    opening: Duration,
    /// Bytes of this process, more than before.
    memory: u64,
    descriptors: usize,
    tasks: usize,
    page: Duration,
    prefix: Duration,
    wake: Duration,
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("read statm");
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * 4096
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("list descriptors")
        .count()
}

async fn median(test: &TestHost, query: &ListQuery) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        let page = test.host.list(&test.principal.org, query.clone()).await;
        assert_eq!(page.expect("listed").sprites.len(), query.limit as usize);
        times.push(begun.elapsed());
    }
    times.sort();
    times[10]
}

async fn cost(sprites: u32) -> Cost {
    let mut test = TestHost::new().await;
    test.driver.pretend(DriverKind::Microvm);
    let pattern = test.create("pattern").await;
    test.host.awake(pattern.id).await.expect("awake");
    test.host.close().await;
    let options = SqliteConnectOptions::new().filename(test.catalog_file());
    let mut connection = options.connect().await.expect("open the catalog");
    let copies = sqlx::query(COPIES).bind(sprites);
    copies.execute(&mut connection).await.expect("make rows");
    drop(connection);

    let before = resident();
    let begun = Instant::now();
    let options = HostOptions {
        max_sprites: u64::MAX,
        ..TestHost::options()
    };
    test.reopen(options).await.expect("reopen");
    let opening = begun.elapsed();
    let memory = resident().saturating_sub(before);
    assert_eq!(test.host.active(), 0, "nobody who sleeps has a task");
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let page = ListQuery {
        limit: 50,
        ..ListQuery::default()
    };
    let prefix = ListQuery {
        prefix: Some("s-0000".to_owned()),
        ..page.clone()
    };
    let (page, prefix) = (median(&test, &page).await, median(&test, &prefix).await);
    let begun = Instant::now();
    let awake = test.host.awake(pattern.id).await.expect("awake");
    let wake = begun.elapsed();
    drop(awake);
    assert_eq!(
        test.host.active(),
        1,
        "one is awake, and the others are not"
    );
    let row = test.host.sprite_by_id(pattern.id).await.expect("a row");
    assert_eq!(row.status, SpriteStatus::Running);
    Cost {
        opening,
        memory,
        descriptors: descriptors(),
        tasks,
        page,
        prefix,
        wake,
    }
}

/// As [`cost`], in a runtime of its own.
fn cost_of(sprites: u32) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("make a runtime");
    runtime.block_on(cost(sprites))
}

#[test]
fn whoever_sleeps_on_disk_costs_no_task_and_no_descriptor() {
    let few = cost_of(100);
    let sprites = std::env::var("SLEEPING").ok();
    let sprites = sprites.and_then(|text| text.parse().ok()).unwrap_or(1000);
    let many = cost_of(sprites);
    println!("with 100: {few:?}\nwith {sprites}: {many:?}");
    // A few more or less are connections on their way back to the catalog's pool.
    assert!(many.tasks <= few.tasks + 16, "{few:?} {many:?}");
    assert!(many.descriptors <= few.descriptors + 4, "{few:?} {many:?}");
    assert!(
        many.memory <= few.memory + u64::from(sprites) * 2048,
        "{few:?} {many:?}"
    );
}

/// A machine that the last run had no time to end is ended, though the row of its sprite is not read at the start.
#[tokio::test]
async fn a_machine_beside_memory_on_disk_is_ended_at_the_start() {
    let mut test = TestHost::new().await;
    test.driver.pretend(DriverKind::Microvm);
    let sprite = test.create("one").await.id;
    drop(test.host.awake(sprite).await.expect("awake"));
    let hold = test.driver.hold(sprite_testkit::Step::Destroy);
    let host = test.host.clone();
    let asleep = tokio::spawn(async move { host.sleep(sprite, support::SOON).await });
    support::until_status(&test.host, sprite, SpriteStatus::Warm).await;
    assert_eq!(test.driver.machines().len(), 1, "it is about to be ended");
    test.host.clone().kill().await;
    asleep.abort();
    drop(hold);
    test.reopen(TestHost::options()).await.expect("reopen");
    assert!(test.driver.machines().is_empty());
    until_in_agreement(&test).await;
    test.host
        .awake(sprite)
        .await
        .expect("it wakes with its memory");
}
