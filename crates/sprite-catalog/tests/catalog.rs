//! The catalog as its users see it, on a file of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use sprite_catalog::{
    Catalog, CatalogError, Fence, Idleness, InsertError, Maker, NewSprite, Operation, Policy,
    PrivateAccess, Scope, Settings, Sprite, UrlAuth,
};
use sprite_types::{
    CountLimit, DriverKind, Incarnation, MachineId, MemoryLimit, NetworkPolicy, NetworkRule, OrgId,
    Policies, Preset, Privileges, Profile, ResourceLimits, Resources, RuleAction, SpriteId,
    SpriteStatus,
};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-22 06:07:08.123456 UTC);
const LIMIT: u64 = 1000;

struct Fixture {
    catalog: Catalog,
    org: OrgId,
    dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
    let org = catalog
        .ensure_organisation(&"personal".parse().unwrap(), NOW)
        .await
        .unwrap()
        .id;
    Fixture { catalog, org, dir }
}

fn new_sprite(org: &OrgId, name: &str) -> NewSprite {
    NewSprite {
        id: SpriteId::random(),
        org: org.clone(),
        name: name.parse().unwrap(),
        driver: DriverKind::Container,
        image: "base".to_owned(),
        labels: vec!["prod".parse().unwrap()],
        url_auth: UrlAuth::Sprite,
        private_access: PrivateAccess::Admins,
        resources: Resources::default_for(2),
        environment: BTreeMap::from([("K".to_owned(), "V=\"ä\n".to_owned())]),
        idleness: Idleness::default(),
        api_access: false,
        maker: None,
        fork_of: None,
        at: NOW,
    }
}

impl Fixture {
    async fn sprite(&self, name: &str) -> Sprite {
        self.catalog
            .insert_sprite(&new_sprite(&self.org, name), LIMIT)
            .await
            .unwrap()
    }

    async fn read(&self, id: SpriteId) -> Sprite {
        self.catalog.sprite(id).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_sprite_reads_as_it_was_written() {
    let f = fixture().await;
    let new = new_sprite(&f.org, "one");
    let written = f.catalog.insert_sprite(&new, LIMIT).await.unwrap();
    assert_eq!(f.read(new.id).await, written);
    assert_eq!(
        f.catalog.sprite_named(&f.org, &new.name).await.unwrap(),
        Some(written.clone())
    );
    assert_eq!(
        (written.id, &written.name, &written.labels),
        (new.id, &new.name, &new.labels)
    );
    assert_eq!(
        (written.environment.clone(), written.resources),
        (new.environment, new.resources)
    );
    assert_eq!(
        (written.status, written.machine, written.created_at),
        (SpriteStatus::Cold, None, NOW)
    );
    assert_eq!(written.org_slug.as_str(), "personal");
    assert_eq!(
        f.catalog.intents().await.unwrap(),
        vec![(new.id, Operation::Create)]
    );
}

#[tokio::test]
async fn of_many_creates_of_one_name_one_wins() {
    let f = fixture().await;
    let tries = (0..16).map(|_| {
        let (catalog, new) = (f.catalog.clone(), new_sprite(&f.org, "wanted"));
        tokio::spawn(async move { catalog.insert_sprite(&new, LIMIT).await })
    });
    let mut won = 0;
    for attempt in tries.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, InsertError::NameTaken(_)), "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(f.catalog.sprite_ids().await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_are_per_organisation_and_limits_hold() {
    let f = fixture().await;
    let other = f
        .catalog
        .ensure_organisation(&"other".parse().unwrap(), NOW)
        .await
        .unwrap()
        .id;
    f.sprite("same").await;
    f.catalog
        .insert_sprite(&new_sprite(&other, "same"), LIMIT)
        .await
        .unwrap();
    let over = f
        .catalog
        .insert_sprite(&new_sprite(&other, "second"), 1)
        .await;
    assert!(matches!(over, Err(InsertError::TooMany(1))));
    let nobody = f
        .catalog
        .insert_sprite(&new_sprite(&OrgId::random(), "x"), LIMIT)
        .await;
    assert!(matches!(nobody, Err(InsertError::Organisation(_))));
    assert_eq!(f.catalog.sprite_ids().await.unwrap().len(), 2);
}

#[tokio::test]
async fn leaving_and_entering_rest_is_fenced() {
    let f = fixture().await;
    let sprite = f.sprite("one").await;
    let (id, first, machine) = (sprite.id, sprite.fence(), MachineId::random());
    let run = f
        .catalog
        .complete_create(id, first, machine, NOW)
        .await
        .unwrap();
    assert_eq!(run.incarnation, Incarnation(1));
    let running = f.read(id).await;
    assert_eq!(
        (running.status, running.machine),
        (SpriteStatus::Running, Some(machine))
    );
    assert!(f.catalog.intents().await.unwrap().is_empty());

    // A second machine cannot be announced, neither from the old fence nor from the new one.
    for fence in [first, run] {
        let second = f
            .catalog
            .leave_rest(id, fence, MachineId::random(), NOW)
            .await;
        assert!(matches!(second, Err(CatalogError::Conflict { .. })));
    }
    // Who speaks of an older run changes nothing.
    assert!(
        f.catalog
            .enter_cold(id, first, None, NOW, None)
            .await
            .is_err()
    );
    assert!(f.catalog.enter_warm(id, first, NOW, None).await.is_err());

    f.catalog.enter_warm(id, run, NOW, None).await.unwrap();
    let warm = f.read(id).await;
    assert_eq!(
        (warm.status, warm.machine),
        (SpriteStatus::Warm, Some(machine))
    );
    let thawed = f.catalog.leave_rest(id, run, machine, NOW).await.unwrap();
    f.catalog
        .enter_cold(id, thawed, Some("why"), NOW, None)
        .await
        .unwrap();
    let cold = f.read(id).await;
    assert_eq!(
        (cold.status, cold.machine, cold.incarnation),
        (SpriteStatus::Cold, None, Incarnation(2))
    );
    assert_eq!(cold.failure.as_deref(), Some("why"));
    f.catalog
        .leave_rest(id, cold.fence(), MachineId::random(), NOW)
        .await
        .unwrap();
    assert_eq!(f.read(id).await.failure, None);
    assert_eq!(f.catalog.active_sprites().await.unwrap().len(), 1);
    let machine = f.read(id).await.machine.unwrap();
    f.catalog
        .forget_machines(&[(id, machine)], NOW)
        .await
        .unwrap();
    assert_eq!(f.read(id).await.status, SpriteStatus::Cold);
}

/// How many are running, warm and cold.
async fn counted(f: &Fixture) -> [u64; 3] {
    let counts = f.catalog.counts(&f.org, Scope::Organisation).await.unwrap();
    assert_eq!(counts, f.catalog.all_counts().await.unwrap());
    [counts.running, counts.warm, counts.cold]
}

#[tokio::test]
async fn sprites_are_counted_whatever_becomes_of_them() {
    let f = fixture().await;
    assert_eq!(counted(&f).await, [0, 0, 0]);
    let [one, other] = [f.sprite("one").await, f.sprite("other").await];
    assert_eq!(counted(&f).await, [0, 0, 2]);
    let machine = MachineId::random();
    let made = f.catalog.complete_create(one.id, one.fence(), machine, NOW);
    let run = made.await.unwrap();
    assert_eq!(counted(&f).await, [1, 0, 1]);
    // What is refused is not counted.
    assert!(
        f.catalog
            .enter_warm(one.id, one.fence(), NOW, None)
            .await
            .is_err()
    );
    assert_eq!(counted(&f).await, [1, 0, 1]);
    f.catalog.enter_warm(one.id, run, NOW, None).await.unwrap();
    assert_eq!(counted(&f).await, [0, 1, 1]);
    let (id, fence) = (other.id, other.fence());
    f.catalog.mark_destroyed(id, fence, NOW).await.unwrap();
    f.catalog.delete_sprite(id, fence).await.unwrap();
    assert_eq!(counted(&f).await, [0, 1, 0]);
}

#[tokio::test]
async fn a_destroyed_sprite_leaves_its_name() {
    let f = fixture().await;
    let sprite = f.sprite("one").await;
    f.catalog
        .mark_destroyed(sprite.id, sprite.fence(), NOW)
        .await
        .unwrap();
    f.catalog
        .mark_destroyed(sprite.id, sprite.fence(), NOW)
        .await
        .unwrap();
    assert_eq!(
        f.catalog.intents().await.unwrap(),
        vec![(sprite.id, Operation::Destroy)]
    );
    // Marked, it cannot become complete any more.
    let late = f
        .catalog
        .complete_create(sprite.id, sprite.fence(), MachineId::random(), NOW)
        .await;
    assert!(matches!(late, Err(CatalogError::Conflict { .. })));
    f.catalog
        .delete_sprite(sprite.id, sprite.fence())
        .await
        .unwrap();
    f.catalog
        .delete_sprite(sprite.id, sprite.fence())
        .await
        .unwrap();
    assert!(f.catalog.intents().await.unwrap().is_empty());
    let again = f.sprite("one").await;
    assert_ne!(again.id, sprite.id);
    let gone = f
        .catalog
        .mark_destroyed(sprite.id, sprite.fence(), NOW)
        .await;
    assert!(matches!(gone, Err(CatalogError::Conflict { .. })));
}

#[tokio::test]
async fn pages_follow_names_and_prefixes() {
    let f = fixture().await;
    for name in ["b-2", "a", "b-1", "b", "b-3", "c"] {
        f.sprite(name).await;
    }
    let names = async |prefix: &str, after: &str, limit| {
        let sprites = f
            .catalog
            .sprites(&f.org, Scope::Organisation, prefix, after, limit)
            .await
            .unwrap();
        sprites
            .iter()
            .map(|s| s.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("", "", 10).await,
        ["a", "b", "b-1", "b-2", "b-3", "c"]
    );
    assert_eq!(names("b", "", 2).await, ["b", "b-1"]);
    assert_eq!(names("b", "b-1", 2).await, ["b-2", "b-3"]);
    assert_eq!(names("b-", "b-3", 2).await, Vec::<String>::new());
    assert_eq!(names("%", "", 2).await, Vec::<String>::new());
    assert_eq!(names("", "bb", 9).await, ["c"]);
}

#[tokio::test]
async fn settings_change_one_by_one() {
    let f = fixture().await;
    let before = f.sprite("one").await;
    let later = NOW + std::time::Duration::from_secs(1);
    let public = Settings {
        url_auth: Some(UrlAuth::Public),
        ..Settings::default()
    };
    let after = f
        .catalog
        .update_sprite(before.id, &public, later)
        .await
        .unwrap()
        .unwrap();
    let expected = Sprite {
        url_auth: UrlAuth::Public,
        updated_at: later,
        ..before.clone()
    };
    assert_eq!(after, expected);
    let cleared = Settings {
        labels: Some(Vec::new()),
        ..Settings::default()
    };
    let after = f
        .catalog
        .update_sprite(before.id, &cleared, later)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        after,
        Sprite {
            labels: Vec::new(),
            ..expected
        }
    );
    let nobody = f
        .catalog
        .update_sprite(SpriteId::random(), &cleared, later)
        .await
        .unwrap();
    assert_eq!(nobody, None);
}

#[tokio::test]
async fn tokens_are_kept_as_hashes_and_can_be_revoked() {
    let f = fixture().await;
    let new = f
        .catalog
        .create_token(&"personal".parse().unwrap(), "laptop", NOW)
        .await
        .unwrap();
    let secret = new.text.rsplit('/').next().unwrap().to_owned();
    assert_eq!(new.text, format!("personal/{}/{}/{secret}", f.org, new.id));
    assert!(secret.len() >= 40);
    let token = f.catalog.token(&new.id).await.unwrap().unwrap();
    assert!(token.has_secret(&secret) && token.revoked_at.is_none());
    assert!(!token.has_secret("") && !token.has_secret(&secret[1..]));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(f.dir.path()).unwrap() {
        files.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(
        !files
            .windows(secret.len())
            .any(|window| window == secret.as_bytes()),
        "secret on disk"
    );

    let other = f
        .catalog
        .create_token(&"other".parse().unwrap(), "", NOW)
        .await
        .unwrap()
        .org
        .id;
    assert!(!f.catalog.revoke_token(&other, &new.id, NOW).await.unwrap());
    assert!(f.catalog.revoke_token(&f.org, &new.id, NOW).await.unwrap());
    assert!(!f.catalog.revoke_token(&f.org, &new.id, NOW).await.unwrap());
    assert_eq!(
        f.catalog.token(&new.id).await.unwrap().unwrap().revoked_at,
        Some(NOW)
    );
}

#[tokio::test]
async fn another_process_may_make_tokens_meanwhile() {
    let f = fixture().await;
    let second = Catalog::open(&f.dir.path().join("catalog.db"))
        .await
        .unwrap();
    let (here, there) = (f.catalog.clone(), second.clone());
    let slug = "personal".parse().unwrap();
    for turn in 0..20 {
        let (a, b) = tokio::join!(
            here.create_token(&slug, "here", NOW),
            there.create_token(&slug, "there", NOW)
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(there.token(&a.id).await.unwrap().is_some(), "turn {turn}");
        assert!(here.token(&b.id).await.unwrap().is_some(), "turn {turn}");
    }
}

#[tokio::test]
async fn a_token_that_another_process_revokes_is_seen_as_such_at_once() {
    let f = fixture().await;
    let second = Catalog::open(&f.dir.path().join("catalog.db"))
        .await
        .unwrap();
    let slug = "personal".parse().unwrap();
    let tokens = f.catalog.clone();
    for turn in 0..20 {
        let new = tokens.create_token(&slug, "here", NOW).await.unwrap();
        // Both the one that is read and the one that is kept.
        for _ in 0..2 {
            let token = tokens.token(&new.id).await.unwrap().unwrap();
            assert_eq!(token.revoked_at, None, "turn {turn}");
        }
        let revoked = second.revoke_token(&new.org.id, &new.id, NOW).await;
        assert!(revoked.unwrap());
        for _ in 0..2 {
            let token = tokens.token(&new.id).await.unwrap().unwrap();
            assert_eq!(token.revoked_at, Some(NOW), "turn {turn}");
        }
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let f = fixture().await;
    let sprite = f.sprite("one").await;
    // No close: as after a kill.
    let again = Catalog::open(&f.dir.path().join("catalog.db"))
        .await
        .unwrap();
    assert_eq!(again.sprite(sprite.id).await.unwrap(), Some(sprite));
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let f = fixture().await;
    for entry in std::fs::read_dir(f.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn foreign_files_and_newer_schemas_are_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let text = b"this is not a database, and longer than the header of one would be: ".repeat(4);
    std::fs::write(&path, &text).unwrap();
    assert!(Catalog::open(&path).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), text);

    let f = fixture().await;
    f.catalog.close().await;
    let path = f.dir.path().join("catalog.db");
    let pool =
        sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&path))
            .await
            .unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    assert!(matches!(
        Catalog::open(&path).await,
        Err(CatalogError::Migrate { .. })
    ));
}

#[tokio::test]
async fn a_row_that_nobody_wrote_is_an_error_and_no_panic() {
    let f = fixture().await;
    let sprite = f.sprite("one").await;
    let path = f.dir.path().join("catalog.db");
    let pool =
        sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&path))
            .await
            .unwrap();
    sqlx::query("UPDATE sprites SET cpus = -1")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let read = f.catalog.sprite(sprite.id).await;
    assert!(
        matches!(read, Err(CatalogError::Row { column: "cpus", .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_fence_of_another_owner_changes_nothing() {
    let f = fixture().await;
    let sprite = f.sprite("one").await;
    let foreign = Fence {
        generation: sprite_types::Generation(2),
        ..sprite.fence()
    };
    assert!(
        f.catalog
            .mark_destroyed(sprite.id, foreign, NOW)
            .await
            .is_err()
    );
    assert!(
        f.catalog
            .leave_rest(sprite.id, foreign, MachineId::random(), NOW)
            .await
            .is_err()
    );
    f.catalog.delete_sprite(sprite.id, foreign).await.unwrap();
    assert_eq!(f.read(sprite.id).await, sprite);
}

#[tokio::test]
async fn policies_are_kept_with_their_sprite_and_go_with_it() {
    let fixture = fixture().await;
    let (one, other) = (fixture.sprite("one").await, fixture.sprite("other").await);
    assert_eq!(
        fixture.catalog.policies(one.id).await.unwrap(),
        Policies::default()
    );
    let closed = NetworkPolicy {
        rules: vec![
            NetworkRule::Domain {
                domain: "*.example.org".parse().unwrap(),
                action: RuleAction::Allow,
            },
            NetworkRule::Include {
                include: Preset::Defaults,
            },
        ],
    };
    let wanted = Policies {
        network: closed.clone(),
        privileges: Privileges {
            profile: Profile::Minimal,
            devices: vec!["/dev/null".to_owned()],
            no_new_privileges: true,
        },
        resources: ResourceLimits {
            memory: Some(MemoryLimit {
                limit_mb: 512,
                autoscale: true,
            }),
            cpu: None,
            pids: Some(CountLimit { limit: 100 }),
        },
    };
    for policy in [
        Policy::Network(NetworkPolicy::default()),
        Policy::Network(wanted.network.clone()),
        Policy::Privileges(wanted.privileges.clone()),
        Policy::Resources(wanted.resources),
    ] {
        assert!(
            fixture
                .catalog
                .set_policy(one.id, &policy, NOW)
                .await
                .unwrap()
        );
    }
    assert_eq!(fixture.catalog.policies(one.id).await.unwrap(), wanted);
    assert_eq!(
        fixture.catalog.policies(other.id).await.unwrap(),
        Policies::default()
    );
    let nobody = SpriteId::random();
    let closed = Policy::Network(closed);
    let stored = fixture.catalog.set_policy(nobody, &closed, NOW);
    assert!(!stored.await.unwrap(), "there is no such sprite");
    fixture
        .catalog
        .delete_sprite(one.id, one.fence())
        .await
        .unwrap();
    assert_eq!(
        fixture.catalog.policies(one.id).await.unwrap(),
        Policies::default()
    );
}

/// What a sprite made is counted, listed and bounded apart, and begins under the policies of its maker.
#[tokio::test]
async fn a_sprite_makes_sprites_while_it_may() {
    let f = fixture().await;
    let (parent, other) = (f.sprite("parent").await, f.sprite("other").await);
    let make = |name: &str| NewSprite {
        maker: Some(Maker {
            sprite: parent.id,
            most: 2,
        }),
        ..new_sprite(&f.org, name)
    };
    let refused = f.catalog.insert_sprite(&make("early"), LIMIT).await;
    assert!(matches!(refused, Err(InsertError::MayNotMake(id)) if id == parent.id));
    let open = Settings {
        api_access: Some(true),
        ..Settings::default()
    };
    let opened = f.catalog.update_sprite(parent.id, &open, NOW).await;
    assert!(opened.unwrap().unwrap().api_access);
    let closed = Policy::Network(NetworkPolicy {
        rules: vec![NetworkRule::Domain {
            domain: "*".parse().unwrap(),
            action: RuleAction::Deny,
        }],
    });
    f.catalog.set_policy(parent.id, &closed, NOW).await.unwrap();
    let first = f.catalog.insert_sprite(&make("b"), LIMIT).await.unwrap();
    assert_eq!((first.made_by, first.api_access), (Some(parent.id), false));
    assert_eq!(
        f.catalog.policies(first.id).await.unwrap(),
        f.catalog.policies(parent.id).await.unwrap()
    );
    let second = f.catalog.insert_sprite(&make("a"), LIMIT).await.unwrap();
    let third = f.catalog.insert_sprite(&make("c"), LIMIT).await;
    assert!(
        matches!(third, Err(InsertError::MadeTooMany(2))),
        "{third:?}"
    );
    let scope = Scope::MadeBy(parent.id);
    let made = f.catalog.sprites(&f.org, scope, "", "", 10).await.unwrap();
    let made: Vec<SpriteId> = made.iter().map(|sprite| sprite.id).collect();
    assert_eq!(made, [second.id, first.id]);
    assert_eq!(f.catalog.counts(&f.org, scope).await.unwrap().total(), 2);
    let all = f.catalog.counts(&f.org, Scope::Organisation).await.unwrap();
    assert_eq!(all.total(), 4);
    let none = Scope::MadeBy(other.id);
    let none = f.catalog.sprites(&f.org, none, "", "", 10).await.unwrap();
    assert_eq!(none, []);
    // The maker goes, what it made stays, and room for more is nobody's.
    let fence = parent.fence();
    f.catalog.delete_sprite(parent.id, fence).await.unwrap();
    let kept = f.catalog.sprite(first.id).await.unwrap().unwrap();
    assert_eq!(kept.made_by, Some(parent.id));
    let late = f.catalog.insert_sprite(&make("late"), LIMIT).await;
    assert!(matches!(late, Err(InsertError::MayNotMake(_))), "{late:?}");
}
