use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Block, BlockMetrics};
use crate::config::{CacheType, Drive};
use crate::virtio::DeviceState;
use crate::virtio::driver::{Buffer, Driver, Used, restricted};

const SECTORS: u64 = 4096;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const NO_FLUSH: u64 = 1 << 9;

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// A guest with one disk.
struct Guest {
    driver: Driver,
    metrics: Arc<BlockMetrics>,
    file: File,
    drive: Drive,
    _directory: TempDir,
}

impl Guest {
    fn new(access: Access, cache_type: CacheType, without: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::on(directory, access, cache_type, without)
    }

    fn on(directory: TempDir, access: Access, cache_type: CacheType, without: u64) -> Self {
        let path = directory.path().join("disk");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("a file");
        file.set_len(SECTORS * 512 + 100).expect("it grows");
        let drive = Drive {
            drive_id: "disk".to_owned().try_into().expect("an id"),
            path_on_host: path,
            is_root_device: false,
            is_read_only: matches!(access, Access::Read),
            cache_type,
        };
        let block = Block::open(&drive, &restricted()).expect("a disk");
        let metrics = block.metrics();
        Self {
            driver: Driver::start(Box::new(block), without),
            metrics,
            file,
            drive,
            _directory: directory,
        }
    }

    fn writable() -> Self {
        Self::new(Access::Write, CacheType::Writeback, 0)
    }

    fn request(&mut self, kind: u32, sector: u64, data: Buffer) -> Used {
        self.driver.request(0, &request(kind, sector, data))
    }

    /// The status of a request that writes nothing to the guest.
    fn status(&mut self, kind: u32, sector: u64, data: Vec<u8>) -> u8 {
        let used = self.request(kind, sector, Buffer::Readable(data));
        *used.bytes.last().expect("a status")
    }

    fn on_host(&self, sector: u64, sectors: usize) -> Vec<u8> {
        let mut bytes = vec![0; sectors * 512];
        self.file
            .read_exact_at(&mut bytes, sector * 512)
            .expect("the file reads");
        bytes
    }

    fn again(self, state: &crate::virtio::TransportState) -> Self {
        let block = Block::open(&self.drive, &restricted()).expect("a disk");
        let metrics = block.metrics();
        Self {
            driver: self.driver.load(Box::new(block), state),
            metrics,
            ..self
        }
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    header
}

fn request(kind: u32, sector: u64, data: Buffer) -> Vec<Buffer> {
    vec![
        Buffer::Readable(header(kind, sector)),
        data,
        Buffer::Writable(1),
    ]
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(sector.to_le_bytes());
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn what_the_guest_writes_is_in_the_file_and_reads_back() {
    let mut guest = Guest::writable();
    let data: Vec<u8> = (0..8192u32)
        .map(|number| number.to_le_bytes()[0] ^ 0x5a)
        .collect();
    assert_eq!(guest.status(OUT, 7, data.clone()), 0);
    assert_eq!(guest.on_host(7, 16), data);
    let read = guest.request(IN, 7, Buffer::Writable(8192));
    assert_eq!(read.written, 8193);
    assert_eq!(&read.bytes[..8192], &data);
    assert_eq!(read.bytes[8192], 0);
    assert_eq!(guest.metrics.written_bytes.total(), 8192);
    assert_eq!(guest.metrics.read_bytes.total(), 8192);
}

#[test]
fn header_data_and_status_may_be_cut_in_any_way() {
    let mut guest = Guest::writable();
    let mut bytes = header(OUT, 1);
    bytes.extend([7; 1024]);
    let mut buffers: Vec<_> = bytes
        .chunks(100)
        .map(|part| Buffer::Readable(part.to_vec()))
        .collect();
    buffers.push(Buffer::Writable(1));
    assert_eq!(guest.driver.request(0, &buffers).bytes, [0]);
    assert_eq!(guest.on_host(1, 2), [7; 1024]);
    // The status is the last byte of the last buffer, wherever that begins.
    let read = guest.driver.request(
        0,
        &[
            Buffer::Readable(header(IN, 1)),
            Buffer::Writable(1000),
            Buffer::Writable(25),
        ],
    );
    assert_eq!(read.bytes[..1024], [7; 1024]);
    assert_eq!(read.bytes[1024], 0);
}

#[test]
fn the_configuration_tells_size_and_limits() {
    let guest = Guest::writable();
    let number = |offset, len| {
        let mut bytes = guest.driver.config(offset, len);
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    assert_eq!(number(0, 8), SECTORS, "whole sectors only");
    assert_eq!(number(12, 4), 254);
    assert_eq!(number(36, 4), 1 << 21);
    assert_eq!(number(40, 4), 64);
    assert_eq!(number(56, 1), 1);
    assert_eq!(guest.driver.config(60, 4), [0; 4]);
    assert_eq!(guest.driver.config(u64::MAX - 0x100, 1), [0]);
}

#[test]
fn the_last_sector_can_be_used_and_none_behind_it() {
    let mut guest = Guest::writable();
    assert_eq!(guest.status(OUT, SECTORS - 1, vec![1; 512]), 0);
    assert_eq!(guest.status(OUT, SECTORS, vec![1; 512]), 1);
    assert_eq!(guest.status(OUT, SECTORS - 1, vec![1; 1024]), 1);
    assert_eq!(guest.status(OUT, u64::MAX, vec![1; 512]), 1);
    assert_eq!(guest.status(OUT, u64::MAX / 512 + 1, vec![1; 512]), 1);
    assert_eq!(guest.status(OUT, 0, vec![1; 511]), 1, "part of a sector");
    assert_eq!(guest.status(OUT, 0, vec![1; 513]), 1, "part of a sector");
    assert_eq!(guest.status(OUT, 0, vec![]), 0, "nothing at all");
    assert_eq!(guest.on_host(0, 1), [0; 512]);
    let read = guest.request(IN, SECTORS, Buffer::Writable(512));
    assert_eq!((read.written, read.bytes[512]), (1, 1));
    assert_eq!(guest.metrics.failures.total(), 7);
}

#[test]
fn a_disk_that_is_read_only_refuses_every_change() {
    let mut guest = Guest::new(Access::Read, CacheType::Writeback, 0);
    guest.driver.write(0x14, 0);
    assert_ne!(guest.driver.read(0x10) & 1 << 5, 0, "the driver is told");
    assert_eq!(guest.driver.read(0x10) & (1 << 13 | 1 << 14), 0);
    assert_eq!(guest.status(OUT, 0, vec![1; 512]), 1);
    assert_eq!(guest.status(DISCARD, 0, segment(0, 8, 0)), 1);
    assert_eq!(guest.status(WRITE_ZEROES, 0, segment(0, 8, 0)), 1);
    assert_eq!(guest.request(IN, 0, Buffer::Writable(512)).bytes[512], 0);
    assert_eq!(guest.status(FLUSH, 0, vec![]), 0);
}

#[test]
fn discards_and_zeroes_leave_zeroes_and_their_neighbours() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        let mut guest = Guest::writable();
        assert_eq!(guest.status(OUT, 0, vec![9; 64 * 512]), 0);
        let mut segments = segment(8, 8, flags);
        segments.extend(segment(32, 16, flags));
        assert_eq!(guest.status(kind, 0, segments), 0);
        for (sector, count, byte) in [(0, 8, 9), (8, 8, 0), (16, 16, 9), (32, 16, 0), (48, 16, 9)] {
            assert_eq!(
                guest.on_host(sector, count),
                vec![byte; count * 512],
                "sector {sector}"
            );
        }
    }
}

#[test]
fn a_discard_gives_the_space_back_to_the_host() {
    use std::os::unix::fs::MetadataExt;
    let mut guest = Guest::writable();
    guest.status(OUT, 0, vec![9; 1024 * 512]);
    guest.status(FLUSH, 0, vec![]);
    let before = guest.file.metadata().expect("metadata").blocks();
    assert_eq!(guest.status(DISCARD, 0, segment(0, 1024, 0)), 0);
    let after = guest.file.metadata().expect("metadata").blocks();
    assert!(
        after + 1024 <= before,
        "{before} blocks before, {after} after"
    );
}

#[test]
fn segments_are_checked() {
    let mut guest = Guest::writable();
    let cases = [
        ("none", vec![], 1),
        ("part of one", vec![0; 15], 1),
        ("behind the end", segment(SECTORS, 1, 0), 1),
        ("across the end", segment(SECTORS - 1, 2, 0), 1),
        ("too long", segment(0, (1 << 21) + 1, 0), 1),
        ("wrapping around", segment(u64::MAX, 1, 0), 1),
        ("unknown flags", segment(0, 1, 2), 2),
        ("too many", segment(0, 1, 0).repeat(65), 1),
        ("as many as may be", segment(0, 1, 0).repeat(64), 0),
        ("nothing of the disk", segment(SECTORS, 0, 0), 0),
    ];
    for (name, segments, status) in cases {
        assert_eq!(
            guest.status(DISCARD, 0, segments.clone()),
            status,
            "discard: {name}"
        );
        assert_eq!(
            guest.status(WRITE_ZEROES, 0, segments),
            status,
            "zeroes: {name}"
        );
    }
    assert_eq!(
        guest.status(DISCARD, 0, segment(0, 1, 1)),
        2,
        "a discard has no flags"
    );
}

#[test]
fn the_disk_tells_its_id() {
    let mut guest = Guest::writable();
    let id = guest.request(GET_ID, 0, Buffer::Writable(20));
    assert_eq!(&id.bytes[..5], b"disk\0");
    assert_eq!(id.written, 21);
    assert_eq!(
        guest.request(GET_ID, 0, Buffer::Writable(3)).bytes,
        *b"dis\0"
    );
}

#[test]
fn unknown_requests_are_told_to_be_so() {
    let mut guest = Guest::writable();
    for kind in [2, 3, 5, 14, 15, u32::MAX] {
        assert_eq!(guest.status(kind, 0, vec![]), 2);
    }
    let mut unsafe_guest = Guest::new(Access::Write, CacheType::Unsafe, 0);
    assert_eq!(
        unsafe_guest.status(FLUSH, 0, vec![]),
        2,
        "no flush was offered"
    );
}

#[test]
fn a_guest_that_cannot_flush_has_every_write_on_the_medium() {
    let mut guest = Guest::new(Access::Write, CacheType::Writeback, NO_FLUSH);
    assert_eq!(guest.status(OUT, 0, vec![1; 512]), 0);
    assert_eq!(guest.on_host(0, 1), [1; 512]);
}

#[test]
fn requests_without_room_for_an_answer_come_back_empty() {
    let mut guest = Guest::writable();
    let cases = [
        vec![
            Buffer::Readable(header(OUT, 0)),
            Buffer::Readable(vec![1; 512]),
        ],
        vec![Buffer::Readable(vec![0; 15]), Buffer::Writable(1)],
        vec![Buffer::Writable(512)],
    ];
    for buffers in cases {
        assert_eq!(guest.driver.request(0, &buffers).written, 0);
    }
    assert_eq!(guest.metrics.unanswerable.total(), 3);
    assert_eq!(
        guest.status(OUT, 0, vec![1; 512]),
        0,
        "and the disk goes on"
    );
}

#[test]
fn a_file_that_became_shorter_answers_with_an_error() {
    let mut guest = Guest::writable();
    guest.file.set_len(512).expect("it shrinks");
    assert_eq!(guest.request(IN, 0, Buffer::Writable(1024)).bytes[1024], 1);
    assert_eq!(guest.request(IN, 0, Buffer::Writable(512)).bytes[512], 0);
}

#[test]
fn a_full_ring_of_requests_is_served_in_any_order() {
    let mut guest = Guest::writable();
    let mut heads = Vec::new();
    for sector in 0..80 {
        let data = Buffer::Readable(vec![u8::try_from(sector).expect("small"); 512]);
        heads.push(guest.driver.offer(0, &request(OUT, sector, data)));
    }
    guest.driver.notify(0);
    let mut used = Vec::new();
    while used.len() < heads.len() {
        used.extend(guest.driver.wait_used(0));
    }
    assert!(used.iter().all(|used| used.bytes == [0]));
    let mut returned: Vec<_> = used.iter().map(|used| used.head).collect();
    returned.sort_unstable();
    heads.sort_unstable();
    assert_eq!(returned, heads);
    for sector in 0..80 {
        assert_eq!(
            guest.on_host(sector, 1),
            [u8::try_from(sector).expect("small"); 512]
        );
    }
}

#[test]
fn a_pause_leaves_nothing_in_flight_and_a_load_goes_on() {
    let mut guest = Guest::writable();
    for round in 0..20u8 {
        for sector in 0..40 {
            let data = Buffer::Readable(vec![round; 512]);
            guest.driver.offer(0, &request(OUT, sector, data));
        }
        guest.driver.notify(0);
        let state = guest.driver.save();
        guest.driver.devices.sync().expect("the disk flushes");
        let mut done = guest.driver.take_used(0).len();
        assert_eq!(
            guest.driver.transport.save(),
            state,
            "nothing moves in a pause"
        );
        guest = guest.again(&state);
        while done < 40 {
            done += guest.driver.wait_used(0).len();
        }
        assert_eq!(guest.on_host(0, 40), [round; 40 * 512]);
    }
}

#[test]
fn a_disk_of_another_size_is_not_taken_for_the_saved_one() {
    let guest = Guest::writable();
    let state = guest.driver.save();
    guest.file.set_len((SECTORS + 8) * 512).expect("it grows");
    let other = Block::open(&guest.drive, &restricted()).expect("a disk");
    let fresh = Driver::attach_paused(Box::new(other), Arc::clone(&guest.driver.memory));
    fresh.transport.restore(&state).expect_err("another size");
}

#[test]
fn after_a_failed_flush_nothing_is_written_any_more_even_after_a_load() {
    let guest = Guest::writable();
    let mut state = guest.driver.save();
    let DeviceState::Block(block) = &mut state.device else {
        panic!("a disk's state");
    };
    block.flush_failed = true;
    let mut guest = guest.again(&state);
    assert_eq!(guest.status(OUT, 0, vec![1; 512]), 1);
    assert_eq!(guest.status(FLUSH, 0, vec![]), 1);
    assert_eq!(
        guest.request(IN, 0, Buffer::Writable(512)).bytes[512],
        0,
        "it can be read"
    );
    guest.driver.devices.pause();
    guest
        .driver
        .devices
        .sync()
        .expect_err("nor does a snapshot seem to have saved it");
}

/// A file system of 1 MiB, full but for what `filler` gives back, and a guest with a disk on it.
fn on_full_host() -> Option<(Guest, File)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to make a small file system");
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = c"size=1m";
    rustix::mount::mount(
        "tmpfs",
        directory.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        options,
    )
    .expect("a file system");
    let filler = File::create_new(directory.path().join("filler")).expect("a file");
    let path = directory.path().to_owned();
    let guest = Guest::on(directory, Access::Write, CacheType::Writeback, 0);
    // Open files keep it; the host is rid of it whatever becomes of this test.
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).expect("it detaches");
    let mut offset = 0;
    while filler.write_at(&[1; 4096], offset).is_ok() {
        offset += 4096;
    }
    Some((guest, filler))
}

#[test]
fn on_a_full_host_a_write_waits_until_there_is_room() {
    let Some((mut guest, filler)) = on_full_host() else {
        return;
    };
    guest
        .driver
        .offer(0, &request(OUT, 0, Buffer::Readable(vec![3; 8192])));
    guest.driver.notify(0);
    while guest.metrics.waits_for_space.total() == 0 {
        std::thread::yield_now();
    }
    assert!(
        guest.driver.take_used(0).is_empty(),
        "neither done nor failed"
    );
    assert_eq!(
        guest.request(IN, 100, Buffer::Writable(512)).bytes[512],
        0,
        "others go on"
    );
    filler.set_len(0).expect("room");
    assert_eq!(guest.driver.wait_used(0)[0].bytes, [0]);
    assert_eq!(guest.on_host(0, 16), [3; 8192]);
}

#[test]
fn a_write_that_waits_for_room_survives_a_pause_and_is_kept_in_a_snapshot() {
    let Some((mut guest, filler)) = on_full_host() else {
        return;
    };
    let head = guest
        .driver
        .offer(0, &request(OUT, 0, Buffer::Readable(vec![3; 8192])));
    guest.driver.notify(0);
    while guest.metrics.waits_for_space.total() == 0 {
        std::thread::yield_now();
    }
    let state = guest.driver.save();
    let DeviceState::Block(block) = &state.device else {
        panic!("a disk's state");
    };
    assert_eq!(block.unfinished, [head]);
    guest.driver.devices.resume();
    let waits = guest.metrics.waits_for_space.total();
    while guest.metrics.waits_for_space.total() == waits {
        std::thread::yield_now();
    }
    filler.set_len(0).expect("room");
    assert_eq!(guest.driver.wait_used(0)[0].bytes, [0]);
    assert_eq!(guest.on_host(0, 16), [3; 8192]);
}

#[test]
fn a_reset_does_not_wait_for_room() {
    let Some((mut guest, _filler)) = on_full_host() else {
        return;
    };
    guest
        .driver
        .offer(0, &request(OUT, 0, Buffer::Readable(vec![3; 8192])));
    guest.driver.notify(0);
    while guest.metrics.waits_for_space.total() == 0 {
        std::thread::yield_now();
    }
    guest.driver.initialize(0);
    assert_eq!(guest.request(IN, 0, Buffer::Writable(512)).bytes[512], 0);
}

/// A directory whose files need no medium: hundreds of flushes take their time on one that others use.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_no_such| tempfile::tempdir())
        .expect("a temporary directory")
}

fn any_buffer() -> impl Strategy<Value = Buffer> {
    prop_oneof![
        (0usize..2000).prop_map(Buffer::Writable),
        prop::collection::vec(any::<u8>(), 0..700).prop_map(Buffer::Readable),
        (0u32..16, 0u64..SECTORS + 10)
            .prop_map(|(kind, sector)| Buffer::Readable(header(kind, sector))),
        (0..SECTORS, 0u32..100, 0u32..3)
            .prop_map(|(sector, sectors, flags)| Buffer::Readable(segment(sector, sectors, flags))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a guest asks, it gets an answer or has to reset, and the disk works afterwards.
    #[test]
    fn no_request_stops_a_disk(requests in prop::collection::vec(prop::collection::vec(any_buffer(), 1..6), 1..20)) {
        let mut guest = Guest::on(in_memory(), Access::Write, CacheType::Writeback, 0);
        for buffers in &requests {
            let readable_first = |buffer: &Buffer| matches!(buffer, Buffer::Writable(_));
            if buffers.is_sorted_by_key(readable_first) {
                guest.driver.request(0, buffers);
            } else {
                guest.driver.offer(0, buffers);
                guest.driver.notify(0);
                guest.driver.wait_broken();
                guest.driver.initialize(0);
            }
        }
        prop_assert_eq!(guest.status(OUT, 3, vec![1; 512]), 0);
        prop_assert_eq!(guest.on_host(3, 1), vec![1; 512]);
    }
}
