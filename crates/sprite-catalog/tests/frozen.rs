//! Catalogs that earlier versions wrote open in this one, with all that is in them. Each is named after the last
//! migration of its day, and holds the same: `cold`, `warm` with a policy and a task, and `half`, whose creation was
//! cut off.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use sprite_catalog::{Catalog, Operation, Scope, Sprite};
use sprite_types::{CheckpointId, Egress, MachineId, SpriteStatus};
use time::OffsetDateTime;
use time::macros::datetime;

/// When they were written.
const THEN: OffsetDateTime = datetime!(2026-11-22 06:07:08.123456 UTC);

#[tokio::test]
async fn a_catalog_of_every_earlier_version_opens_with_all_that_is_in_it() {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen");
    let mut opened = 0;
    for file in std::fs::read_dir(frozen).unwrap() {
        let file = file.unwrap().path();
        let home = tempfile::tempdir().unwrap();
        let copy = home.path().join("catalog.db");
        std::fs::copy(&file, &copy).unwrap();
        let catalog = Catalog::open(&copy).await.unwrap();
        whole(&catalog).await;
        catalog.close().await;
        opened += 1;
    }
    assert!(opened > 0);
}

async fn whole(catalog: &Catalog) {
    let slug = "personal".parse().unwrap();
    let org = catalog.ensure_organisation(&slug, THEN).await.unwrap().id;
    let all = catalog.sprites(&org, Scope::Organisation, "", "", 10).await;
    let all: Vec<Sprite> = all.unwrap();
    let named = |name: &str| {
        let found = all.iter().find(|sprite| sprite.name.as_str() == name);
        found.unwrap().clone()
    };
    let (cold, warm, half) = (named("cold"), named("warm"), named("half"));
    assert_eq!(cold.status, SpriteStatus::Cold);
    assert_eq!(warm.status, SpriteStatus::Warm);
    assert!(warm.machine.is_some() && warm.incarnation.0 == 1);
    assert_eq!(cold.created_at, THEN);
    assert_eq!(cold.environment["K"], "V=\"ä\n");
    let intents = catalog.intents().await.unwrap();
    assert_eq!(intents, [(half.id, Operation::Create)]);
    let policies = catalog.policies(warm.id).await.unwrap();
    assert_eq!(policies.network.egress(), Egress::Closed);
    let tasks = catalog.tasks(warm.id, THEN).await.unwrap();
    assert_eq!(tasks[0].name.as_str(), "build");
    let counts = catalog.counts(&org, Scope::Organisation).await.unwrap();
    assert_eq!((counts.cold, counts.warm), (2, 1));

    // And life goes on.
    let machine = MachineId::random();
    let woken = catalog.leave_rest(cold.id, cold.fence(), machine, THEN);
    woken.await.unwrap();
    let kept = catalog.begin_checkpoint(cold.id, "", THEN, 10).await;
    let kept = kept.unwrap();
    assert_eq!(kept, CheckpointId::Asked(1));
    catalog.keep_checkpoint(cold.id, kept, THEN).await.unwrap();
    let now = OffsetDateTime::now_utc();
    assert!(catalog.usage(cold.id, now).await.unwrap().is_some());
}
