//! Chance and time: how long every step takes and whether it fails, decided by the seed.
//!
//! What a step draws depends on the seed, its sprite and how often that sprite took it: not on the order in which
//! steps of several sprites come at one moment.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use async_trait::async_trait;
use sprite_host::{CatalogError, Stage};
use sprite_testkit::{Luck, Seeded, Step};
use sprite_types::SpriteId;
use time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

/// Where the threads of catalogs are reached: real ones, which know nothing of simulated time.
static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("make a runtime")
});

/// Lines of a trace that a failure shows.
const SHOWN: usize = 150;

/// Drives `work` to its end without leaving the poll that calls this: no simulated time passes.
pub fn at_once<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let _threads = THREADS.enter();
    let mut work = std::pin::pin!(tokio::task::unconstrained(work));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}

/// The weather of one run.
pub struct Weather {
    seed: u64,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calm: bool,
    /// Hosts that there were before this one.
    era: u64,
    numbers: BTreeMap<SpriteId, usize>,
    taken: BTreeMap<(u64, String, Option<usize>), u64>,
    shown: VecDeque<String>,
    /// The sum of the hashes of all lines: what happens at one moment has no order.
    hash: u64,
    lines: u64,
}

impl Weather {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing fails and everything is quick, or not.
    pub fn calm(&self, calm: bool) {
        self.state().calm = calm;
    }

    pub fn another_host(&self) {
        self.state().era += 1;
    }

    /// The how-manieth sprite of the run this is.
    pub fn number(&self, sprite: SpriteId) -> usize {
        let numbers = &mut self.state().numbers;
        let next = numbers.len();
        *numbers.entry(sprite).or_insert(next)
    }

    pub fn note(&self, line: &str) {
        let line = format!("{:>10.3} {line}", self.began.elapsed().as_secs_f64());
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let mut state = self.state();
        state.hash = state.hash.wrapping_add(hasher.finish());
        state.lines += 1;
        if state.shown.len() == SHOWN {
            state.shown.pop_front();
        }
        state.shown.push_back(line);
    }

    /// What happened, in a number: the same for the same seed.
    pub fn hash(&self) -> (u64, u64) {
        let state = self.state();
        (state.hash, state.lines)
    }

    /// What happened last.
    pub fn shown(&self) -> String {
        self.state().shown.make_contiguous().join("\n")
    }

    fn draw(&self, step: &str, sprite: Option<SpriteId>) -> Option<Seeded> {
        let number = sprite.map(|sprite| self.number(sprite));
        let mut state = self.state();
        let key = (state.era, step.to_owned(), number);
        let taken = state.taken.entry(key.clone()).or_default();
        *taken += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, key, *taken).hash(&mut hasher);
        (!state.calm).then(|| Seeded::new(hasher.finish()))
    }

    fn tell(&self, step: &str, sprite: Option<SpriteId>, luck: Luck) {
        let number = sprite.map(|sprite| self.number(sprite));
        let sprite = number.map_or_else(String::new, |number| format!(" of #{number}"));
        let fails = if luck.fails { ", fails" } else { "" };
        self.note(&format!("  {step}{sprite}: {:?}{fails}", luck.takes));
    }

    /// How a step of a machine, an agent or a disk goes.
    pub fn luck(&self, step: Step, sprite: SpriteId) -> Luck {
        let step = format!("{step:?}");
        let luck = match self.draw(&step, Some(sprite)) {
            None => Luck {
                takes: Duration::from_millis(1),
                fails: false,
            },
            Some(mut chance) => Luck {
                takes: takes(&mut chance, [20, 500, 5_000, 45_000]),
                fails: chance.per_mille(40),
            },
        };
        self.tell(&step, Some(sprite), luck);
        luck
    }

    async fn wait(
        &self,
        step: &'static str,
        when: &str,
        sprite: Option<SpriteId>,
        often: u64,
    ) -> Result<(), CatalogError> {
        let name = format!("{when} {step}");
        let Some(mut chance) = self.draw(&name, sprite) else {
            return Ok(());
        };
        let luck = Luck {
            takes: takes(&mut chance, [2, 20, 500, 3_000]),
            fails: chance.per_mille(often),
        };
        self.tell(&name, sprite, luck);
        sleep(luck.takes).await;
        if luck.fails {
            let source = sqlx::Error::Io(std::io::Error::other("chance"));
            Err(CatalogError::Query { step, source })
        } else {
            Ok(())
        }
    }
}

/// Mostly quick, seldom not.
fn takes(chance: &mut Seeded, [usual, long, longer, longest]: [u64; 4]) -> Duration {
    let most = match chance.below(100) {
        0..80 => usual,
        80..95 => long,
        95..99 => longer,
        _ => longest,
    };
    Duration::from_millis(1 + chance.below(most))
}

impl fmt::Debug for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weather").finish_non_exhaustive()
    }
}

#[async_trait]
impl Stage for Weather {
    async fn before(
        &self,
        step: &'static str,
        sprite: Option<SpriteId>,
    ) -> Result<(), CatalogError> {
        self.wait(step, "before", sprite, 20).await
    }

    fn drive(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        at_once(work);
    }

    async fn after(
        &self,
        step: &'static str,
        sprite: Option<SpriteId>,
    ) -> Result<(), CatalogError> {
        self.wait(step, "after", sprite, 10).await
    }

    fn time(&self) -> OffsetDateTime {
        // Any day will do.
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.began.elapsed()
    }
}
