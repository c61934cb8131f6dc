//! A host on fakes in simulated time, and what must always hold of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sprite_host::{
    Catalog, Change, CheckStatus, Connections, Disks, Faults, Host, HostOptions, IdleTimeout,
    ListQuery, OpenError, Scope, Sprite, WakeError,
};
use sprite_machine::MachineDriver;
use sprite_testkit::{FakeDisks, FakeDriver, FakeMachine, Seeded, Step};
use sprite_types::{DriverKind, OrgId, SpriteId, SpriteStatus};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::model::Model;
use crate::stage::{Weather, at_once};

/// Longer than any request may take, whatever its steps take.
pub const ANSWERED: Duration = Duration::from_secs(20 * 60);

/// Everything but the host, which comes and goes.
pub struct World {
    pub weather: Arc<Weather>,
    pub model: Arc<Model>,
    pub driver: Arc<FakeDriver>,
    pub disks: Arc<FakeDisks>,
    pub catalog: Catalog,
    pub org: OrgId,
    options: HostOptions,
    _directory: TempDir,
}

impl World {
    /// Another world; `chance` decides what is set.
    pub fn new(seed: u64, chance: &mut Seeded, directory: TempDir) -> Arc<Self> {
        let weather = Weather::new(seed);
        let file = directory.path().join("catalog.db");
        let catalog = at_once(Catalog::open(&file)).expect("open the catalog");
        let driver = Arc::new(FakeDriver::default());
        driver.pretend(if chance.below(3) == 0 {
            DriverKind::Container
        } else {
            DriverKind::Microvm
        });
        let slug = "personal".parse().expect("a legal slug");
        let made = at_once(catalog.ensure_organisation(&slug, sprite_host::Stage::time(&*weather)));
        let options = HostOptions {
            idle_timeout: Some(Duration::from_secs(1 + chance.below(40))),
            cold_after: Duration::from_secs(10 + chance.below(200)),
            faults: Faults::on(weather.clone()),
            ..HostOptions::new(2, "base")
        };
        let world = Arc::new(Self {
            weather,
            model: Arc::default(),
            driver,
            disks: Arc::default(),
            catalog,
            org: made.expect("make an organisation").id,
            options,
            _directory: directory,
        });
        let (machines, disks) = (Arc::downgrade(&world), Arc::downgrade(&world));
        world.driver.chance(Arc::new(move |step, sprite| {
            let world = machines.upgrade().expect("the world goes last");
            world.look_at(step, sprite);
            world.weather.luck(step, sprite)
        }));
        world.disks.chance(Arc::new(move |step, sprite| {
            let world = disks.upgrade().expect("the world goes last");
            world.look_at(step, sprite);
            world.weather.luck(step, sprite)
        }));
        world
    }

    pub async fn open(&self) -> Result<Host, OpenError> {
        self.weather.another_host();
        self.weather.note("a host opens");
        let (disks, driver) = (self.disks.clone(), self.driver.clone());
        Host::open(self.catalog.clone(), disks, driver, self.options.clone()).await
    }

    pub fn name(&self, sprite: SpriteId) -> String {
        format!("#{}", self.weather.number(sprite))
    }

    /// The row as it is now, whatever the host thinks.
    pub fn row(&self, sprite: SpriteId) -> Option<Sprite> {
        at_once(self.catalog.sprite(sprite)).expect("read a row")
    }

    /// All rows as they are now.
    pub fn rows(&self) -> Vec<Sprite> {
        let most = ListQuery::MOST;
        let rows = at_once(
            self.catalog
                .sprites(&self.org, Scope::Organisation, "", "", most),
        );
        rows.expect("read the rows")
    }

    /// What a step that is about to be taken says of promises.
    fn look_at(&self, step: Step, sprite: SpriteId) {
        let (model, name) = (&self.model, self.name(sprite));
        let kept = || self.driver.keeps_snapshots() && self.driver.memory_of(sprite).is_some();
        match step {
            Step::Freeze | Step::Snapshot => model.falls_asleep(sprite, &name),
            Step::Destroy => {
                let row = self.row(sprite);
                if kept() && row.is_some_and(|row| row.status == SpriteStatus::Warm) {
                    model.kept(sprite, true);
                }
            }
            // Announced: from here on the memory is in the machine.
            Step::Thaw => model.kept(sprite, false),
            Step::Start => {
                model.memory_goes(sprite, &name, "a machine boots beside it");
                model.boots(sprite);
            }
            Step::ForgetMemory => model.memory_goes(sprite, &name, "it is deleted"),
            Step::SetMemoryAside => {
                if kept() {
                    model.memory_goes(sprite, &name, "it is put aside, and could be used");
                }
                model.kept(sprite, false);
            }
            Step::Restore => {
                if let Some(machine) = self.driver.machine_of(sprite)
                    && !machine.has_ended()
                {
                    model.broken(format!("the disk of {name} is replaced under a machine"));
                }
            }
            Step::Environment
            | Step::Sync
            | Step::Shutdown
            | Step::Load
            | Step::Egress
            | Step::Limit
            | Step::Policy
            | Step::CreateDisk
            | Step::CreateDiskFull
            | Step::Checkpoint
            | Step::DeleteCheckpoint
            | Step::DeleteDisk => {}
        }
    }

    /// What must hold at every moment.
    pub fn look(&self) -> Vec<String> {
        let mut broken = self.model.verdict();
        broken.extend(self.driver.unsound());
        let machines = self.driver.machines();
        for machine in machines.iter().filter(|machine| !machine.has_ended()) {
            let sprite = machine.identity().sprite;
            let name = self.name(sprite);
            match self.row(sprite).map(|row| row.status) {
                None => broken.push(format!("{name} is gone and has a machine")),
                Some(SpriteStatus::Cold) => {
                    broken.push(format!("{name} is told as cold and has a machine"));
                }
                Some(SpriteStatus::Warm) if !machine.is_frozen() => {
                    broken.push(format!("{name} is told as warm and runs"));
                }
                Some(SpriteStatus::Warm | SpriteStatus::Running) => {}
            }
        }
        broken
    }

    /// Checkpoints are what the catalog says, and all that are promised are there.
    fn look_at_checkpoints(&self) {
        let unfinished = at_once(self.catalog.unfinished_checkpoints()).expect("list");
        for row in self.rows() {
            let (name, id) = (self.name(row.id), row.id);
            let listed = at_once(self.catalog.checkpoints(id)).expect("list").all;
            let listed: BTreeSet<_> = listed.iter().map(|it| it.id).collect();
            let files = self.disks.checkpoints(id);
            let restore = at_once(self.catalog.restore_under_way(id)).expect("look");
            let left_over = |file| {
                unfinished.contains(&(id, file)) || restore.is_some_and(|it| it.kept == file)
            };
            if !listed.is_subset(&files) {
                let text = format!("{name} has checkpoints {listed:?} and files {files:?}");
                self.model.broken(text);
            }
            for file in files.difference(&listed) {
                if !left_over(*file) {
                    self.model
                        .broken(format!("{name} has file {file} of no checkpoint"));
                }
            }
            let promised = self.model.checkpoints(id);
            if !promised.is_subset(&listed) {
                let text = format!("{name} has {listed:?} and was promised {promised:?}");
                self.model.broken(text);
            }
        }
    }

    /// Why not everything is at rest and told as it is; `None` if it is.
    async fn unrest(&self, host: &Host) -> Option<String> {
        let active = host.active();
        let rows = self.rows();
        let disks = self.disks.list().await.expect("list disks");
        let named: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
        if named != disks.into_iter().collect() {
            return Some("rows and disks differ".to_owned());
        }
        let mut tasks = 0;
        for row in &rows {
            let machine = self.driver.machine_of(row.id);
            let name = self.name(row.id);
            let asleep = match row.status {
                SpriteStatus::Running => return Some(format!("{name} runs")),
                SpriteStatus::Warm if self.driver.keeps_snapshots() => {
                    let directory = self.disks.snapshots(row.id).await.expect("a directory");
                    machine.is_none() && directory.join("memory").exists()
                }
                SpriteStatus::Warm => {
                    tasks += 1;
                    machine.as_deref().is_some_and(FakeMachine::is_frozen)
                }
                SpriteStatus::Cold => machine.is_none(),
            };
            if !asleep {
                return Some(format!("{name} is told as {} and is not", row.status));
            }
        }
        (active != tasks).then(|| format!("{active} sprites have a task, {tasks} need one"))
    }

    /// Nothing fails any more and nobody wants anything: everything falls asleep, and wakes when it is asked.
    pub async fn rest(&self, host: &Host) {
        self.weather.note("calm");
        self.weather.calm(true);
        for row in self.rows() {
            // Gone meanwhile, perhaps.
            let _ = host.update(row.id, by_the_server()).await;
            self.model.traffic(row.id, false);
        }
        self.until_all_sleep(host).await;
        for row in self.rows() {
            self.wakes(host, row.id).await;
        }
        self.until_all_sleep(host).await;
        self.look_at_checkpoints();
        self.weather.calm(false);
    }

    async fn until_all_sleep(&self, host: &Host) {
        // Whoever could not fall asleep waits up to 64 times as long before it tries again.
        let idle = self.options.idle_timeout.unwrap_or_default() * 70;
        let limit = ANSWERED + idle + self.options.cold_after;
        let began = Instant::now();
        let mut pause = Duration::from_secs(1);
        while let Some(why) = self.unrest(host).await {
            // What began in the storm has had its time by then.
            if began.elapsed() > Duration::from_secs(300)
                && let Some(stuck) = self.stuck(host).await
                && !self.helped(host, stuck).await
            {
                return;
            }
            if began.elapsed() > limit {
                self.model.broken(format!("no rest: {why}"));
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }

    /// A sprite of which only a person's restart makes something again, and that says so.
    async fn stuck(&self, host: &Host) -> Option<SpriteId> {
        for row in self.rows() {
            if self.is_stuck(host, &row).await {
                return Some(row.id);
            }
        }
        None
    }

    async fn is_stuck(&self, host: &Host, row: &Sprite) -> bool {
        let left = self.driver.machine_of(row.id).is_some();
        let in_machine = match row.status {
            SpriteStatus::Running => true,
            SpriteStatus::Warm => !self.driver.keeps_snapshots(),
            SpriteStatus::Cold => false,
        };
        if !left && !in_machine {
            return false;
        }
        let check = host.check(row.id).await;
        check.is_ok_and(|check| check.status == CheckStatus::Error)
    }

    /// A person restarts it.
    async fn helped(&self, host: &Host, stuck: SpriteId) -> bool {
        let name = self.name(stuck);
        self.weather.note(&format!("{name} is stuck"));
        let kept = self.driver.keeps_snapshots() && self.driver.memory_of(stuck).is_some();
        if kept
            && self
                .row(stuck)
                .is_some_and(|row| row.status == SpriteStatus::Warm)
        {
            self.model
                .broken(format!("{name} is stuck, and its memory with it"));
        }
        self.model.drop_asked(stuck, true);
        let restarted = host.restart(stuck).await;
        self.model.drop_asked(stuck, false);
        if let Err(error) = &restarted {
            self.model.broken(format!("{name} stays stuck: {error}"));
        }
        restarted.is_ok()
    }

    async fn wakes(&self, host: &Host, sprite: SpriteId) {
        let began = Instant::now();
        let awake = loop {
            match host.awake(sprite).await {
                // A step that began in the storm still takes its time.
                Err(WakeError::Starting { .. }) if began.elapsed() < ANSWERED => {}
                answer => break answer,
            }
        };
        match awake {
            Ok(awake) => {
                self.model.awake(sprite);
                drop(awake);
            }
            Err(error) => {
                if let Some(row) = self.row(sprite)
                    && self.is_stuck(host, &row).await
                {
                    self.helped(host, sprite).await;
                    return;
                }
                let name = self.name(sprite);
                self.model.broken(format!("{name} does not wake: {error}"));
            }
        }
    }
}

/// Settings under which everything falls asleep that nobody holds.
fn by_the_server() -> Change {
    Change {
        idle_timeout: Some(IdleTimeout::Server),
        connections: Some(Connections::Open),
        ..Change::default()
    }
}
