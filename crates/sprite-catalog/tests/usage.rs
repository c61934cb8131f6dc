//! What sprites used, as the catalog keeps it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use sprite_catalog::{Catalog, Idleness, NewSprite, PrivateAccess, Sprite, UrlAuth};
use sprite_lifecycle::metering::{Meter, Reading, Usage};
use sprite_types::{DriverKind, MachineId, Resources, SpriteId, SpriteStatus};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const BORN: OffsetDateTime = datetime!(2026-11-22 06:07:08.123456 UTC);

fn at(seconds: i64) -> OffsetDateTime {
    BORN + Duration::seconds(seconds)
}

fn reading(machine: MachineId, cpu_seconds: u64) -> Reading {
    Reading {
        machine,
        cpu_micros: cpu_seconds * 1_000_000,
        memory_bytes: 3 << 20,
        bytes_in: 7,
        bytes_out: 9,
    }
}

struct Fixture {
    catalog: Catalog,
    dir: tempfile::TempDir,
    sprite: Sprite,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
    let slug = "personal".parse().unwrap();
    let org = catalog.ensure_organisation(&slug, BORN).await.unwrap().id;
    let new = NewSprite {
        id: SpriteId::random(),
        org,
        name: "one".parse().unwrap(),
        driver: DriverKind::Container,
        image: "base".to_owned(),
        labels: Vec::new(),
        url_auth: UrlAuth::Sprite,
        private_access: PrivateAccess::Admins,
        resources: Resources::default_for(2),
        environment: BTreeMap::new(),
        idleness: Idleness::default(),
        api_access: false,
        maker: None,
        fork_of: None,
        at: BORN,
    };
    let sprite = catalog.insert_sprite(&new, 10).await.unwrap();
    Fixture {
        catalog,
        dir,
        sprite,
    }
}

impl Fixture {
    async fn meter(&self) -> Meter {
        let metered = self.catalog.usage(self.sprite.id, at(1000)).await.unwrap();
        metered.unwrap().meter
    }
}

#[tokio::test]
async fn each_transition_counts_what_came_before_it_and_all_of_it_is_durable() {
    let f = fixture().await;
    let (id, machine) = (f.sprite.id, MachineId::random());
    let fence = f.sprite.fence();
    let run = f.catalog.complete_create(id, fence, machine, at(2)).await;
    let run = run.unwrap();
    let told = Some(reading(machine, 4));
    f.catalog.enter_warm(id, run, at(12), told).await.unwrap();
    let run = f.catalog.leave_rest(id, run, machine, at(32)).await;
    let run = run.unwrap();
    // While it runs, without any change of its row.
    let told = [(id, reading(machine, 5))];
    f.catalog.record_usage(&told, at(42)).await.unwrap();
    let end = f
        .catalog
        .enter_cold(id, run, None, at(72), Some(reading(machine, 6)));
    end.await.unwrap();
    f.catalog.close().await;

    let catalog = Catalog::open(&f.dir.path().join("catalog.db"))
        .await
        .unwrap();
    let metered = catalog.usage(id, at(1000)).await.unwrap().unwrap();
    assert_eq!(metered.status, SpriteStatus::Cold);
    let wanted = Usage {
        running_micros: 50_000_000,
        warm_micros: 20_000_000,
        cold_micros: 2_000_000,
        cpu_micros: 6_000_000,
        memory_mib_micros: 3 * 50_000_000,
        bytes_in: 7,
        bytes_out: 9,
    };
    assert_eq!(metered.meter.usage, wanted);
    let life = metered.meter.until.since(metered.meter.since);
    assert_eq!(life, 72_000_000);
}

#[tokio::test]
async fn a_change_that_is_refused_counts_nothing() {
    let f = fixture().await;
    let (id, machine) = (f.sprite.id, MachineId::random());
    let fence = f.sprite.fence();
    let before = f.meter().await;
    let told = Some(reading(machine, 4));
    let early = f.catalog.enter_warm(id, fence, at(12), told).await;
    assert!(early.is_err());
    let late = f.catalog.enter_cold(id, fence.next(), None, at(12), told);
    assert!(late.await.is_err());
    assert_eq!(f.meter().await, before);
}

#[tokio::test]
async fn a_machine_that_is_the_sprites_no_more_is_passed_over() {
    let f = fixture().await;
    let (id, machine) = (f.sprite.id, MachineId::random());
    let fence = f.sprite.fence();
    let told = [(id, reading(machine, 4))];
    f.catalog.record_usage(&told, at(1)).await.unwrap();
    assert_eq!(f.meter().await, Meter::begun(f.meter().await.since));
    let run = f.catalog.complete_create(id, fence, machine, at(2)).await;
    run.unwrap();
    let other = [(id, reading(MachineId::random(), 4))];
    f.catalog.record_usage(&other, at(3)).await.unwrap();
    let gone = [(SpriteId::random(), reading(machine, 4))];
    f.catalog.record_usage(&gone, at(4)).await.unwrap();
    assert_eq!(f.meter().await.usage.cpu_micros, 0);
}

#[tokio::test]
async fn a_machine_that_was_lost_counts_until_it_was_found_lost() {
    let f = fixture().await;
    let (id, machine) = (f.sprite.id, MachineId::random());
    let fence = f.sprite.fence();
    let run = f.catalog.complete_create(id, fence, machine, at(2)).await;
    run.unwrap();
    let lost = f.catalog.forget_machines(&[(id, machine)], at(30)).await;
    lost.unwrap();
    assert_eq!(f.meter().await.usage.running_micros, 28_000_000);
    // A second time it is not lost.
    let lost = f.catalog.forget_machines(&[(id, machine)], at(40)).await;
    lost.unwrap();
    assert_eq!(f.meter().await.usage.running_micros, 28_000_000);
}

#[tokio::test]
async fn what_a_sprite_used_goes_with_it() {
    let f = fixture().await;
    let (id, fence) = (f.sprite.id, f.sprite.fence());
    f.catalog.delete_sprite(id, fence).await.unwrap();
    assert_eq!(f.catalog.usage(id, at(1)).await.unwrap(), None);
}
