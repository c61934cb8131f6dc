//! The guest system, really made: needs apt with an index, the network, and depmod.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sprite_disk::guest::{Guest, GuestBuildError, GuestError, GuestOptions, GuestSource};
use sprite_disk::{Progress, Silent};

struct Printed;

impl Progress for Printed {
    fn step(&self, text: &str) {
        println!("{text}");
    }

    fn detail(&self, text: &str) {
        println!("    {text}");
    }
}

/// Where the tests' images are kept from run to run, as a server keeps them.
fn cache() -> PathBuf {
    std::env::var_os("SPRITE_IMAGE_CACHE")
        .unwrap_or_else(|| "/var/cache/sprited".into())
        .into()
}

fn can_build() -> bool {
    let missing = [
        ("/usr/bin/apt-get", "apt"),
        ("/usr/sbin/depmod", "kmod"),
        ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ]
    .into_iter()
    .find(|(program, _)| !Path::new(program).exists());
    if let Some((program, package)) = missing {
        println!("skipped: {program} is missing; apt-get install {package}");
        return false;
    }
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        println!("skipped: the servers' cache is root's; run cargo xtask test --all");
    }
    root
}

fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("debugfs")
        .args(["-R", request])
        .arg(image)
        .output();
    String::from_utf8_lossy(&output.expect("debugfs").stdout).into_owned()
}

#[test]
fn a_server_boots_what_it_recorded() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let options = GuestOptions {
        directory: directory.path().join("guest"),
        cache_dir: cache(),
    };
    assert_eq!(
        Guest::recorded(&options.directory).expect("no record"),
        None
    );
    let made = match Guest::open(&options, &GuestSource::Recorded, b"agent 1", &Printed) {
        Err(GuestError::Build(GuestBuildError::NoKernel)) => {
            println!("skipped: apt knows no kernel here; apt-get update");
            return;
        }
        made => made.expect("a guest system"),
    };
    assert!(
        fs::read(&made.kernel)
            .expect("the kernel")
            .starts_with(b"\x7fELF")
    );
    let index = debugfs(&made.modules, &format!("cat /{}/modules.dep", made.version));
    for module in [
        "overlay.ko:",
        "tun.ko:",
        "nf_tables.ko:",
        "veth.ko:",
        "bridge.ko:",
    ] {
        assert!(index.contains(module), "{module} in {index}");
    }
    let initramfs = fs::read(&made.initramfs).expect("the archive");
    for content in [&b"virtio_mmio.ko\n"[..], b"agent 1"] {
        assert!(
            initramfs
                .windows(content.len())
                .any(|bytes| bytes == content)
        );
    }
    let recorded = Guest::recorded(&options.directory)
        .expect("a record")
        .expect("one");
    assert_eq!((&recorded.id, &recorded.version), (&made.id, &made.version));

    // Another agent, as after an update of the server, in the same guest system; no cache is needed for that.
    let alone = GuestOptions {
        cache_dir: "/nowhere".into(),
        ..options.clone()
    };
    let again = Guest::open(&alone, &GuestSource::Recorded, b"agent 2", &Silent).expect("it");
    assert_eq!((&again.id, &again.kernel), (&made.id, &made.kernel));
    assert!(!made.initramfs.exists() && again.initramfs.exists());
    let earlier = GuestSource::Earlier(made.id.clone());
    Guest::open(&alone, &earlier, b"agent 2", &Silent).expect("by its name");

    // Another file: the one of the cache may be the same under another name.
    fs::remove_file(&made.kernel).expect("remove");
    fs::write(&made.kernel, "changed").expect("write");
    let damaged = Guest::open(&alone, &GuestSource::Recorded, b"agent 2", &Silent);
    assert!(
        matches!(damaged, Err(GuestError::Damaged { .. })),
        "{damaged:?}"
    );
    // As the message says.
    fs::remove_dir_all(made.kernel.parent().expect("its directory")).expect("remove it");
    Guest::open(&options, &GuestSource::Recorded, b"agent 2", &Silent).expect("made anew");
    let updated = Guest::update(&options, &Silent).expect("there is nothing newer");
    assert_eq!(updated, recorded);
}

#[test]
fn records_of_later_versions_are_refused_and_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let record = directory.path().join("current.json");
    let options = GuestOptions {
        directory: directory.path().to_owned(),
        cache_dir: "/nowhere".into(),
    };
    let id = "0".repeat(32);
    for text in [
        format!(r#"{{"format":2,"guest":"{id}"}}"#),
        r#"{"format":1,"guest":"../../etc"}"#.to_owned(),
        "{".to_owned(),
        String::new(),
    ] {
        fs::write(&record, &text).expect("write");
        let opened = Guest::open(&options, &GuestSource::Recorded, b"", &Silent);
        assert!(
            matches!(opened, Err(GuestError::Record { .. })),
            "{opened:?}"
        );
        assert_eq!(fs::read_to_string(&record).expect("it is there"), text);
    }
}
