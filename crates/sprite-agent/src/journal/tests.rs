//! Journals with a writer that the test steps: whatever happens between the steps, readers get every byte.

use super::store::Store;
use super::*;
use proptest::prelude::*;

const PERIOD: usize = 1_000_003;

/// Output in which every place is known by its bytes.
fn pattern() -> &'static Bytes {
    static PATTERN: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    PATTERN.get_or_init(|| {
        let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 16).to_le_bytes()[0];
        let once: Vec<u8> = (0..PERIOD).map(byte).collect();
        Bytes::from([once.as_slice(), &once].concat())
    })
}

fn output(at: u64, length: usize) -> Bytes {
    let at = usize::try_from(at).expect("small") % PERIOD;
    pattern().slice(at..at + length)
}

fn is_output(at: u64, bytes: &[u8]) -> bool {
    let mut at = at;
    bytes.chunks(PERIOD / 2).all(|piece| {
        let same = output(at, piece.len()) == piece;
        at += piece.len() as u64;
        same
    })
}

/// A journal, its readers, and what the writer is in the middle of.
struct Played {
    journal: Journal,
    readers: Vec<u64>,
    store: Option<Store>,
    asked: bool,
    half: Option<(Vec<Piece>, Vec<Bytes>, u64)>,
}

impl Played {
    fn new(store: Option<Store>) -> Self {
        Self {
            journal: Journal::default(),
            readers: Vec::new(),
            store,
            asked: false,
            half: None,
        }
    }

    fn on_disk() -> Self {
        Self::new(Some(store()))
    }

    fn readers(&self) -> Readers {
        let in_memory = |at: &u64| self.journal.is_in_memory(*at);
        Readers {
            front: self.readers.iter().copied().filter(in_memory).max(),
            rear: self.readers.iter().copied().min(),
        }
    }

    /// Writes output if that is allowed now.
    fn push(&mut self, length: usize) {
        let readers = self.readers();
        if self.journal.has_room(readers) {
            let chunk = output(self.journal.end(), length);
            self.asked |= self.journal.push(chunk, readers);
        }
    }

    /// Lets the writer go on by half a step.
    fn write(&mut self, done: io::Result<()>) {
        let readers = self.readers();
        if let Some((pieces, chunks, length)) = self.half.take() {
            let done = done.and_then(|()| ring::write(&pieces, chunks));
            self.journal.wrote(length, &done, readers);
            return;
        }
        if !std::mem::take(&mut self.asked) {
            return;
        }
        match self.journal.task(readers) {
            Task::Nothing => return,
            Task::Open { at, size } => {
                let store = self.store.as_ref().ok_or(NoRing::Room);
                let ring = store.and_then(|store| store.ring(at, size));
                self.journal.opened(ring, readers);
            }
            Task::Write {
                pieces,
                chunks,
                length,
            } => self.half = Some((pieces, chunks, length)),
        }
        self.asked = true;
    }

    fn attach(&mut self, offset: u64) {
        let at = offset.clamp(self.journal.start(), self.journal.end());
        self.readers.push(at);
    }

    /// Lets a reader read what is next; returns whether there was anything.
    fn read(&mut self, reader: usize) -> bool {
        let at = self.readers[reader];
        let bytes = match self.journal.find(at) {
            Found::Memory(bytes) => bytes,
            Found::Disk(piece) => piece.read().expect("a disk that works"),
            Found::End => return false,
            Found::Gone => panic!("{at} is gone under a reader"),
        };
        assert!(is_output(at, &bytes), "other bytes at {at}");
        self.readers[reader] += bytes.len() as u64;
        let readers = self.readers();
        self.asked |= self.journal.settle(readers);
        true
    }

    fn read_all(&mut self, reader: usize) {
        while self.read(reader) {}
        assert_eq!(self.readers[reader], self.journal.end());
    }

    fn write_all(&mut self) {
        while self.asked || self.half.is_some() {
            self.write(Ok(()));
        }
    }
}

fn store() -> Store {
    // Whose files they are does not matter here.
    let user = rustix::process::geteuid().as_raw();
    Store::open(&std::env::temp_dir(), user).expect("a directory")
}

const CHUNK: usize = 128 << 10;

#[test]
fn short_output_never_leaves_memory() {
    let mut played = Played::on_disk();
    for _ in 0..KEPT / CHUNK {
        played.push(CHUNK);
    }
    assert!(!played.asked, "there is nothing to write");
    played.attach(0);
    played.read_all(0);
}

#[test]
fn long_output_is_kept_up_to_the_size_of_a_ring() {
    let mut played = Played::on_disk();
    for _ in 0..3 * RING / CHUNK as u64 {
        played.push(CHUNK);
        played.write_all();
    }
    let kept = played.journal.end() - played.journal.start();
    assert!((RING..RING + KEPT as u64).contains(&kept), "{kept}");
    assert!(played.journal.memory() < 2 * KEPT);
    played.attach(0);
    played.attach(played.journal.start() + 12_345);
    played.read_all(0);
    played.read_all(1);
}

/// Who reads slowly holds the stream when it would lose something, and not before.
#[test]
fn a_slow_reader_has_its_own_pace_and_loses_nothing() {
    let mut played = Played::on_disk();
    played.attach(0);
    played.attach(0);
    let mut before = u64::MAX;
    while before != played.journal.end() {
        before = played.journal.end();
        played.push(CHUNK);
        played.write_all();
        played.read_all(0);
    }
    assert!(before > RING / 2, "held after {before}");
    played.read_all(1);
    played.push(CHUNK);
    assert!(played.journal.end() > before, "it goes on");
}

/// Without a disk memory is kept, and readers hold the stream.
#[test]
fn a_disk_that_is_not_there_or_breaks_costs_history_and_nothing_else() {
    for breaks_after in [0, RING / 2, 2 * RING] {
        let mut played = if breaks_after == 0 {
            Played::new(None)
        } else {
            Played::on_disk()
        };
        while played.journal.end() < breaks_after {
            played.push(CHUNK);
            played.write_all();
        }
        played.attach(0);
        let broken = || io::Error::from_raw_os_error(libc::ENOSPC);
        for _ in 0..100 {
            played.push(CHUNK);
            played.write(Err(broken()));
            played.read(0);
        }
        played.read_all(0);
        played.readers.clear();
        for _ in 0..100 {
            played.push(CHUNK);
            played.write(Err(broken()));
        }
        let kept = played.journal.end() - played.journal.start();
        assert!((KEPT as u64..2 * KEPT as u64).contains(&kept), "{kept}");
        assert_eq!(kept, played.journal.memory() as u64);
        played.attach(0);
        played.read_all(0);
    }
}

#[test]
fn what_ended_leaves_memory_and_is_still_read() {
    let mut played = Played::on_disk();
    played.push(1000);
    let readers = played.readers();
    played.asked |= played.journal.evict(readers);
    played.write_all();
    assert_eq!(played.journal.memory(), 0);
    played.attach(300);
    played.read_all(0);
    assert!(played.journal.leave_disk());
    assert_eq!((played.journal.start(), played.journal.end()), (1000, 1000));
    let mut without = Played::new(None);
    without.push(1000);
    let readers = without.readers();
    without.asked |= without.journal.evict(readers);
    without.write_all();
    assert_eq!(
        (without.journal.memory(), without.journal.start()),
        (0, 1000)
    );
}

/// A store gives only so much, and takes back what was given.
#[test]
fn a_store_is_bounded() {
    let store = store();
    let mut rings: Vec<Ring> = std::iter::from_fn(|| store.ring(0, RING).ok()).collect();
    assert!(rings.len() as u64 <= (1 << 30) / RING);
    assert!(matches!(store.ring(0, RING), Err(NoRing::Room)));
    rings.pop();
    assert!(store.ring(0, RING).is_ok());
    drop(rings);
    let many: Vec<Ring> = std::iter::from_fn(|| store.ring(0, 1).ok()).collect();
    assert_eq!(many.len(), 512);
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Write,
    Fail,
    Attach(u64),
    Read(usize),
    Detach(usize),
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1..CHUNK).prop_map(Step::Push),
        6 => Just(Step::Push(CHUNK)),
        16 => Just(Step::Write),
        2 => (0..3 * RING).prop_map(Step::Attach),
        8 => (0..4usize).prop_map(Step::Read),
        1 => (0..4usize).prop_map(Step::Detach),
    ];
    let last = prop_oneof![4 => Just(Step::Write), 1 => Just(Step::Fail), 1 => Just(Step::Evict)];
    (prop::collection::vec(step, 0..900), last).prop_map(|(mut steps, last)| {
        let middle = steps.len() / 2;
        steps.insert(middle, last);
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn readers_get_every_byte_whatever_happens_between(steps in steps()) {
        let mut played = Played::on_disk();
        let mut ended = false;
        for step in steps {
            match step {
                Step::Push(length) => if !ended { played.push(length) },
                Step::Write => played.write(Ok(())),
                Step::Fail => played.write(Err(io::ErrorKind::Other.into())),
                Step::Attach(offset) => if played.readers.len() < 4 { played.attach(offset) },
                Step::Read(reader) => if reader < played.readers.len() { played.read(reader); },
                Step::Detach(reader) => if reader < played.readers.len() { played.readers.remove(reader); },
                Step::Evict => {
                    let readers = played.readers();
                    played.asked |= played.journal.evict(readers);
                    ended = true;
                }
            }
            prop_assert!(played.journal.memory() <= 4 * KEPT);
        }
        for reader in 0..played.readers.len() {
            while played.read(reader) {}
        }
    }
}
