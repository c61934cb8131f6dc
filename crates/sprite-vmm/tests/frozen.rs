//! Snapshots that earlier programs made, kept as they were: what was released once is loaded for ever.
//!
//! How the next one is made is said in `frozen/README.md`.

mod guests;
mod harness;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guests::{COUNTER, MEMORY_MIB, Program as Guest, SIGNAL, Setting, kvm_opens};
use harness::vmm::Vmm;
use serde_json::{Value, json};
use sprite_vmm::config::VmConfig;
use sprite_vmm::vm::VmState;
use tempfile::TempDir;

const FROZEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frozen");
const PAGE: usize = 4096;
const MEMORY: u64 = MEMORY_MIB << 20;
/// Bytes of a state file before its payload.
const HEAD: usize = 24 + 32;

/// The directories of all versions with their numbers.
fn versions() -> Vec<(u32, PathBuf)> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(FROZEN)
        .expect("it is in the repository")
        .filter_map(|entry| {
            let path = entry.expect("it reads").path();
            let number = path
                .file_name()?
                .to_str()?
                .strip_prefix('v')?
                .parse()
                .ok()?;
            Some((number, path))
        })
        .collect();
    versions.sort();
    versions
}

/// Writes a memory file as its pages that are not zero, each behind its offset.
fn pack(memory: &Path, to: &Path) {
    let bytes = std::fs::read(memory).expect("it reads");
    assert_eq!(bytes.len() as u64, MEMORY + PAGE as u64);
    let mut packed = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            packed.extend((number as u64 * PAGE as u64).to_le_bytes());
            packed.extend(page);
        }
    }
    std::fs::write(to, packed).expect("it is written");
}

fn unpack(packed: &Path, to: &Path) {
    let packed = std::fs::read(packed).expect("it is in the repository");
    let memory = File::create(to).expect("a file is made");
    memory.set_len(MEMORY + PAGE as u64).expect("it grows");
    for record in packed.chunks(8 + PAGE) {
        let (offset, page) = record.split_at(8);
        memory
            .write_all_at(page, number(offset))
            .expect("it is written");
    }
}

fn number(bytes: &[u8]) -> u64 {
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, fold)
}

/// What is in the envelope of a state file, after all that protects it was looked at by this test's own eyes.
fn payload(version: u32, state: &[u8]) -> Value {
    assert_eq!(&state[..8], b"SPRTVMM\0");
    assert_eq!(number(&state[8..12]), 1, "a machine's state");
    assert_eq!(number(&state[12..16]), u64::from(version));
    assert_eq!(number(&state[16..24]), (state.len() - HEAD) as u64);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&state[..24]).update(&state[HEAD..]);
    assert_eq!(hasher.finalize().as_bytes(), &state[24..HEAD]);
    serde_json::from_slice(&state[HEAD..]).expect("it is JSON")
}

#[test]
fn every_frozen_snapshot_is_whole_and_reads_today() {
    let versions = versions();
    assert!(!versions.is_empty());
    for (version, path) in versions {
        let state = std::fs::read(path.join("state")).expect("it is in the repository");
        let mut payload = payload(version, &state);
        let directory = directory();
        let memory = directory.path().join("memory");
        unpack(&path.join("memory"), &memory);
        let mut seal = [0; PAGE];
        File::open(memory)
            .and_then(|file| file.read_exact_at(&mut seal, MEMORY))
            .expect("the memory has a last page");
        assert_eq!(&seal[..8], b"SPRTMEM\0");
        assert_eq!((number(&seal[12..16]), number(&seal[16..24])), (1, MEMORY));
        assert_eq!(
            blake3::hash(&seal[..PAGE - 32]).as_bytes(),
            &seal[PAGE - 32..]
        );
        assert_eq!(payload["id"], json!(seal[24..40]), "they belong together");
        let config: VmConfig = parsed(payload["config"].take());
        assert_eq!(config.drives.len() + config.network_interfaces.len(), 2);
        let _state: VmState = parsed(payload["machine"].take());
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("today's program reads it")
}

#[test]
fn the_format_of_today_is_among_the_frozen_ones() {
    let mut program = harness::Program::start();
    program.boot();
    program.pause();
    program.snapshot("Full");
    let state = std::fs::read(program.path("state")).expect("it is there");
    let today = number(&state[12..16]);
    let newest = versions().last().map(|(version, _)| u64::from(*version));
    assert_eq!(
        newest,
        Some(today),
        "a format that changes has a new version, and a snapshot of it is frozen: see frozen/README.md"
    );
    let memory = std::fs::read(program.path("memory")).expect("it is there");
    let seal = number(&memory[memory.len() - PAGE + 8..][..4]);
    assert_eq!(seal, 1, "so has the seal of a memory file");
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Whether this is the box, where nothing is a reason to leave something out.
fn in_box() -> bool {
    Path::new("/mnt/box").is_dir()
}

/// Whether a network card can be had here. If not, the test says so in one line and passes.
fn taps_open() -> bool {
    let open = rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !open {
        eprintln!("skipped: a tap needs root; run cargo xtask kvm-test");
    }
    open
}

/// A tap that is gone with the program that holds it.
fn tap() -> String {
    format!("frozen{}", std::process::id())
}

/// A machine's files and sockets have names without a directory: the program is started where they are.
fn make(directory: &Path) {
    let setting = Setting::of(Guest::Registers);
    std::fs::copy(setting.path("kernel"), directory.join("kernel")).expect("a kernel is written");
    std::fs::write(directory.join("disk"), vec![0; 1 << 20]).expect("a disk is written");
    let mut vmm = Vmm::start(directory, "api");
    for (path, body) in [
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}),
        ),
        ("/boot-source", json!({"kernel_image_path": "kernel"})),
        (
            "/drives/disk",
            json!({"drive_id": "disk", "path_on_host": "disk", "is_root_device": false,
                "cache_type": "Writeback"}),
        ),
        (
            "/network-interfaces/eth0",
            json!({"iface_id": "eth0", "host_dev_name": tap()}),
        ),
        ("/vsock", json!({"guest_cid": 3, "uds_path": "vsock"})),
        ("/entropy", json!({})),
        ("/serial", json!({"serial_out_path": "console"})),
        ("/actions", json!({"action_type": "InstanceStart"})),
    ] {
        vmm.done("PUT", path, &body);
    }
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        vmm.pause();
        let create = json!({"snapshot_type": "Full", "snapshot_path": "state",
            "mem_file_path": "memory", "disk_generation": "7"});
        vmm.done("PUT", "/snapshot/create", &create);
        let mut ready = [0; 4];
        File::open(directory.join("memory"))
            .and_then(|file| file.read_exact_at(&mut ready, COUNTER.0))
            .expect("the file is as long as the memory");
        if u32::from_le_bytes(ready) == 1 {
            return;
        }
        assert!(Instant::now() < limit, "the guest gets ready");
        vmm.resume();
    }
}

/// A state as a host would have written it whose clock counts at that speed, in kHz.
fn at_speed(state: &[u8], khz: u64) -> Vec<u8> {
    let mut payload: Value = serde_json::from_slice(&state[HEAD..]).expect("it is JSON");
    for cpu in payload["machine"]["vcpus"].as_array_mut().expect("CPUs") {
        assert!(cpu["time"]["khz"].is_u64(), "where the speed is said");
        cpu["time"]["khz"] = json!(khz);
    }
    let payload = serde_json::to_vec(&payload).expect("it is JSON");
    let mut sealed = state[..16].to_vec();
    sealed.extend((payload.len() as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&sealed).update(&payload);
    sealed.extend(hasher.finalize().as_bytes());
    sealed.extend(payload);
    sealed
}

/// The speed of this host's clock, where a guest is refused because its own is another and cannot be scaled.
fn speed_here(why: &Value) -> Option<u64> {
    let (_, here) = why.as_str()?.split_once(" on a host of ")?;
    here.strip_suffix(" kHz that cannot scale")?.parse().ok()
}

/// Loads what was frozen and has the guest look at its registers. Nothing if the guest is of another CPU. The box's
/// clock counts as the one of the computer below it: the guest's is said to be that, if `khz` are given.
fn wake(frozen: &Path, khz: Option<u64>) -> Option<()> {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("disk"), vec![0; 1 << 20]).expect("a disk is written");
    let state = std::fs::read(frozen.join("state")).expect("it is in the repository");
    let state = khz.map_or_else(|| state.clone(), |khz| at_speed(&state, khz));
    std::fs::write(at("state"), state).expect("a state is written");
    unpack(&frozen.join("memory"), &at("memory"));
    // What the guest waits for.
    File::options()
        .write(true)
        .open(at("memory"))
        .and_then(|file| file.write_all_at(&1_u32.to_le_bytes(), SIGNAL.0))
        .expect("it is written");
    let mut vmm = Vmm::start(directory.path(), "api");
    vmm.done("PUT", "/serial", &json!({"serial_out_path": "console"}));
    let load = json!({
        "snapshot_path": "state",
        "mem_backend": {"backend_type": "File", "backend_path": "memory"},
        "network_overrides": [{"iface_id": "eth0", "host_dev_name": tap()}],
        "disk_generation": "7",
    });
    match vmm.ask("PUT", "/snapshot/load", &load) {
        Some((204, _)) => {}
        Some((400, answer)) if answer["fault_kind"] == "snapshot_unfit" && !in_box() => {
            let why = &answer["fault_message"];
            eprintln!("skipped: {why}; run cargo xtask kvm-test --box");
            return None;
        }
        Some((400, answer)) if khz.is_none() && speed_here(&answer["fault_message"]).is_some() => {
            return wake(frozen, speed_here(&answer["fault_message"]));
        }
        other => panic!("{} is refused: {other:?}", frozen.display()),
    }
    vmm.resume();
    let (ended, said) = vmm.end();
    assert_eq!(ended, Some(0), "{said}");
    let console = std::fs::read_to_string(at("console")).expect("a console of text");
    assert_eq!(console, "y\n", "all registers are what they were");
    Some(())
}

#[test]
fn every_frozen_snapshot_goes_on() {
    if !kvm_opens() || !taps_open() {
        return;
    }
    for (_, path) in versions() {
        wake(&path, None);
    }
}

#[test]
fn what_is_made_today_can_be_frozen() {
    if !kvm_opens() || !taps_open() {
        return;
    }
    let directory = directory();
    make(directory.path());
    let kept = match std::env::var_os("SPRITE_VMM_FREEZE") {
        Some(directory) => PathBuf::from(directory),
        // What is there is brought home.
        None if in_box() => PathBuf::from("/results/frozen"),
        None => directory.path().join("frozen"),
    };
    std::fs::create_dir_all(&kept).expect("a directory is made");
    std::fs::copy(directory.path().join("state"), kept.join("state")).expect("it is copied");
    pack(&directory.path().join("memory"), &kept.join("memory"));
    wake(&kept, None).expect("it is of this CPU");
}
