//! The outer system of the box: a small Debian, its kernel and an initramfs, made once and kept.
//!
//! Debian 13, because programs that were built on this computer run in it: its C library is newer than those of
//! the systems that this project is developed on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, Privilege, target_directory};
use crate::kvm_test::cpio::Archive;
use crate::kvm_test::{disk, mirror};
use crate::packages::{self, Package, Sign};
use crate::program::Program;

/// Its release.
const SUITE: &str = "trixie";

/// What its root file system holds, beside what no Debian is without.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "ca-certificates",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "mmdebstrap",
    "nftables",
    "procps",
    "socat",
    "strace",
    "xfsprogs",
    "xz-utils",
];

/// Room for what runs in it; only what is written takes any.
const ROOT_BYTES: u64 = 24 << 30;

const CUSTOMIZE: &str = include_str!("customize.sh");
const INITRAMFS: &str = include_str!("initramfs.sh");

/// Another number makes another system of the same recipe.
const RECIPE_VERSION: u32 = 1;

/// What making and running the box needs on this computer.
pub const TOOLS: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        sign: Sign::Program("qemu-system-x86_64"),
        purpose: "emulates the box",
    },
    Package {
        name: "mmdebstrap",
        sign: Sign::Program("mmdebstrap"),
        purpose: "makes its root file system",
    },
    Package {
        name: "debian-archive-keyring",
        sign: Sign::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        purpose: "verifies its packages",
    },
    Package {
        name: "e2fsprogs",
        sign: Sign::Program("mkfs.ext4"),
        purpose: "makes and reads its disks",
    },
];

/// A finished outer system.
#[derive(Debug)]
pub struct Outer {
    /// Its kernel.
    pub kernel: PathBuf,
    /// What the kernel starts.
    pub initramfs: PathBuf,
    /// Its root file system, which nobody writes to.
    pub root: PathBuf,
}

/// How its packages are unpacked with the right owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As the caller, in a user namespace.
    Namespace,
    /// As root.
    Root,
}

impl Outer {
    /// The kept one; made if there is none.
    ///
    /// # Errors
    /// It cannot be made; nothing half-made is left.
    pub fn ready(host: &Host, consent: Consent) -> Outcome<Self> {
        let recipe = recipe();
        let cache = cache()?;
        let directory = cache.join(name(&recipe));
        let finished = Self::at(&directory);
        if finished.is_of(&recipe) {
            packages_for(host, consent, &[])?;
            return Ok(finished);
        }
        let lock = cache.join("lock");
        let lock = File::create(&lock).map_err(Failure::io(format!("open {}", lock.display())))?;
        // Another run that makes it now is waited for.
        lock.lock().map_err(Failure::io("wait for another run"))?;
        if finished.is_of(&recipe) {
            packages_for(host, consent, &[])?;
            return Ok(finished);
        }
        eprintln!(
            "the box's outer system is made once, and kept in {} (remove it with: rm -r {})",
            directory.display(),
            cache.display()
        );
        let way = way(host);
        let step = match way {
            Way::Namespace => Vec::new(),
            Way::Root => vec![
                "mmdebstrap unpacks a small Debian in a temporary directory, and makes a disk image of it"
                    .to_owned(),
            ],
        };
        packages_for(host, consent, &step)?;
        sweep(&cache)?;
        let work = cache.join(format!("making-{}", std::process::id()));
        fs::create_dir(&work).map_err(Failure::io(format!("make {}", work.display())))?;
        let made = make(host, way, &work, &recipe).and_then(|()| {
            // A directory of an interrupted version without its recipe may be there.
            let _ = fs::remove_dir_all(&directory);
            fs::rename(&work, &directory)
                .map_err(Failure::io(format!("keep {}", directory.display())))
        });
        if made.is_err() {
            // What is told is why it failed.
            let _ = fs::remove_dir_all(&work);
        }
        made.map(|()| finished)
    }

    fn at(directory: &Path) -> Self {
        Self {
            kernel: directory.join("vmlinuz"),
            initramfs: directory.join("initramfs"),
            root: directory.join("root.img"),
        }
    }

    /// Whether it is there, and of this recipe.
    fn is_of(&self, recipe: &str) -> bool {
        fs::read_to_string(self.root.with_file_name("recipe")).is_ok_and(|kept| kept == recipe)
    }
}

/// Installs what the box needs, after a question.
fn packages_for(host: &Host, consent: Consent, steps: &[String]) -> Outcome {
    let missing = packages::missing(TOOLS);
    let all: Vec<String> = packages::announcement(&missing)
        .into_iter()
        .chain(steps.iter().cloned())
        .collect();
    host.agree(&all, consent)?;
    packages::install(host, &missing)
}

/// Everything that decides what the outer system is.
fn recipe() -> String {
    format!(
        "version {RECIPE_VERSION}\nsuite {SUITE}\npackages {}\nbytes {ROOT_BYTES}\n\n{CUSTOMIZE}\n{INITRAMFS}",
        PACKAGES.join(" ")
    )
}

/// A short name of a recipe. The recipe itself lies beside what it made, so that no two are taken for one.
fn name(recipe: &str) -> String {
    // FNV-1a, of 64 bits. Source: draft-eastlake-fnv, section 2.
    let hash = recipe
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

/// The calling user's cache, which outlives a working tree; below `target/` for a user without a home.
fn cache() -> Outcome<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(target_directory)
        .join("sprited-box");
    fs::create_dir_all(&cache).map_err(Failure::io(format!("make {}", cache.display())))?;
    Ok(cache)
}

/// Removes what interrupted runs left; the lock says that none is at work.
fn sweep(cache: &Path) -> Outcome {
    let failed = || Failure::io(format!("clear {}", cache.display()));
    for entry in fs::read_dir(cache).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_name().to_string_lossy().starts_with("making-") {
            fs::remove_dir_all(entry.path()).map_err(failed())?;
        }
    }
    Ok(())
}

/// As the caller where the system lets it.
fn way(host: &Host) -> Way {
    if host.privilege == Privilege::Root {
        return Way::Root;
    }
    let tried = Program::new("mmdebstrap")
        .args(["--unshare-helper", "true"])
        .say();
    if tried.is_ok_and(|said| said.status.success()) {
        Way::Namespace
    } else {
        Way::Root
    }
}

fn make(host: &Host, way: Way, work: &Path, recipe: &str) -> Outcome {
    let root = work.join("root.img");
    // Made as the caller, so that it stays the caller's whoever fills it.
    let file = File::create(&root).map_err(Failure::io(format!("make {}", root.display())))?;
    file.set_len(ROOT_BYTES)
        .map_err(Failure::io(format!("size {}", root.display())))?;
    let own = mirror::sources(SUITE);
    let filled = fill(host, way, &root, &own);
    if !own.is_empty() && matches!(filled, Err(Failure::Exit { .. })) {
        // A mirror of one release only is a good mirror for the computer and none for the box.
        eprintln!("this computer's mirror failed; the archive's own front is tried");
        fill(host, way, &root, &[])?;
    } else {
        filled?;
    }
    disk::read_file(&root, "/boot/vmlinuz", &work.join("vmlinuz"))?;
    let mut archive = Archive::default();
    for name in ["bin", "dev", "root"] {
        archive.directory(name);
    }
    for (name, from) in [
        ("bin/busybox", "/usr/bin/busybox"),
        ("virtio_blk.ko", "/boot/virtio_blk.ko"),
    ] {
        let copy = work.join("part");
        disk::read_file(&root, from, &copy)?;
        let content = fs::read(&copy).map_err(Failure::io(format!("read {}", copy.display())))?;
        archive.program(name, &content);
        fs::remove_file(&copy).map_err(Failure::io(format!("remove {}", copy.display())))?;
    }
    archive.program("init", INITRAMFS.as_bytes());
    let write = |name: &str, content: &[u8]| {
        let path = work.join(name);
        fs::write(&path, content).map_err(Failure::io(format!("write {}", path.display())))
    };
    write("initramfs", &archive.finish())?;
    file.sync_all()
        .map_err(Failure::io("write the root file system"))?;
    // Last: a directory with its recipe is a whole one.
    write("recipe", recipe.as_bytes())
}

/// Unpacks the packages, and has an image made of them.
fn fill(host: &Host, way: Way, root: &Path, sources: &[String]) -> Outcome {
    let words = [
        "--variant=minbase".to_owned(),
        "--format=null".to_owned(),
        "--aptopt=APT::Install-Recommends \"false\"".to_owned(),
        "--aptopt=Acquire::Languages \"none\"".to_owned(),
        "--dpkgopt=force-unsafe-io".to_owned(),
        format!("--include={}", PACKAGES.join(",")),
        format!("--customize-hook={CUSTOMIZE}"),
        SUITE.to_owned(),
        "-".to_owned(),
    ];
    let program = match way {
        Way::Root => host.as_root(
            Program::new("mmdebstrap")
                .args(["--mode=root"])
                .args(&words)
                .env("BOX_IMAGE", root),
        )?,
        // The namespace's root may not look into the caller's directories: it gets the open file.
        Way::Namespace => Program::new("sh")
            .args(["-c", r#"exec 9<>"$0"; exec mmdebstrap --mode=unshare "$@""#])
            .args([root])
            .args(&words)
            .env("BOX_IMAGE", "/proc/self/fd/9"),
    };
    eprintln!("mmdebstrap: a minute or two");
    let filled = program.args(sources).read().map(drop);
    crate::interrupt::check()?;
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_recipe_is_another_system() {
        assert_eq!(name(""), "cbf29ce484222325");
        assert_ne!(name("suite a"), name("suite b"));
        assert_eq!(name(&recipe()), name(&recipe()));
    }

    #[test]
    fn a_system_without_its_recipe_is_none() {
        let directory = std::env::temp_dir().join(format!("outer-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory can be made");
        let outer = Outer::at(&directory);
        fs::write(&outer.root, "half").expect("a file can be written");
        let before = outer.is_of("a");
        fs::write(directory.join("recipe"), "a").expect("a file can be written");
        let after = (outer.is_of("a"), outer.is_of("b"));
        fs::remove_dir_all(&directory).expect("the directory is ours");
        assert!(!before);
        assert_eq!(after, (true, false));
    }

    #[test]
    fn what_interrupted_runs_left_is_swept() {
        let cache = std::env::temp_dir().join(format!("outer-cache-{}", std::process::id()));
        for name in ["making-1", "0123456789abcdef"] {
            fs::create_dir_all(cache.join(name)).expect("a directory can be made");
        }
        sweep(&cache).expect("the directory is ours");
        let left: Vec<_> = fs::read_dir(&cache)
            .expect("the cache is there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        fs::remove_dir_all(&cache).expect("the directory is ours");
        assert_eq!(left, ["0123456789abcdef"]);
    }
}
