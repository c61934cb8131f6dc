//! Base images, really built: needs root.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use sprite_disk::image::{self, BuildError, ExtractError, Recipe, Variant};
use sprite_disk::{Progress, Silent};
use support::{image_id, is_root, lines, loops_of};

/// Prints what a build says, and remembers the steps.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Progress for Steps {
    fn step(&self, text: &str) {
        println!("{text}");
        self.0
            .lock()
            .expect("no panic while it is held")
            .push(text.to_owned());
    }

    fn detail(&self, text: &str) {
        println!("    {text}");
    }
}

/// Where the images of the tests are kept from run to run, as a server keeps them.
fn cache() -> PathBuf {
    std::env::var_os("SPRITE_IMAGE_CACHE")
        .unwrap_or_else(|| "/var/cache/sprited".into())
        .into()
}

fn can_build() -> bool {
    if !is_root() {
        return false;
    }
    let there = Path::new("/usr/bin/mmdebstrap").exists();
    if !there {
        println!("skipped: mmdebstrap is missing; apt-get install mmdebstrap");
    }
    there
}

/// One file of an image, read by the tool of the file system's makers.
fn cat(image: &Path, path: &str) -> String {
    debugfs(image, &format!("cat {path}"))
}

fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("debugfs")
        .arg("-R")
        .arg(request)
        .arg(image)
        .output()
        .expect("debugfs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_minimal_image_has_what_a_sprite_needs() {
    if !can_build() {
        return;
    }
    let recipe = Recipe::debian(Variant::Minimal).expect("a recipe");
    let built = image::build(&recipe, &cache(), &Steps::default()).expect("build the image");
    support::assert_sound(&built.path);
    assert_eq!(built.id, recipe.id());
    let again = image::build(&recipe, &cache(), &Silent).expect("find the image");
    assert_eq!(built, again);
    let listed = image::cached(&cache()).expect("list");
    let listed = listed
        .iter()
        .find(|image| image.id == built.id)
        .expect("it is listed");
    assert_eq!(
        (listed.nominal_bytes, listed.description.as_str()),
        (100 << 30, "Debian trixie, minimal")
    );

    let image = &built.path;
    assert!(cat(image, "/etc/passwd").contains("\nsprite:x:1000:1000::/home/sprite:/bin/bash\n"));
    assert!(cat(image, "/etc/shadow").contains("\nsprite:*:"));
    assert!(cat(image, "/etc/group").contains("\nsudo:x:27:sprite\n"));
    assert!(cat(image, "/etc/sudoers.d/sprite").contains("NOPASSWD"));
    assert!(cat(image, "/usr/lib/os-release").contains("VERSION_CODENAME=trixie"));
    assert!(cat(image, "/etc/hosts").contains("localhost"));
    assert!(cat(image, "/etc/apt/sources.list").contains("trixie-security"));
    assert!(cat(image, "/etc/profile.d/sprite.sh").contains(".local/bin"));
    assert!(cat(image, "/usr/sbin/policy-rc.d").contains("101"));
    assert_eq!(cat(image, "/etc/machine-id"), "");
    let stat = debugfs(image, "stat /etc/resolv.conf");
    assert!(stat.contains("Type: regular"), "{stat}");
    let stat = debugfs(image, "stat /home/sprite/.local/bin");
    assert!(stat.contains("User:  1000   Group:  1000"), "{stat}");
    let stat = debugfs(image, "stat /usr/bin/sudo");
    assert!(stat.contains("Mode:  04755"), "{stat}");
    assert!(
        debugfs(image, "ls /var/lib/apt/lists")
            .trim_end()
            .lines()
            .count()
            <= 1
    );
}

/// Takes minutes and fetches 200 MB, so only where it is asked for: `SPRITE_TEST_DEFAULT_IMAGE=1`.
#[test]
fn the_default_image_has_what_people_expect() {
    if std::env::var_os("SPRITE_TEST_DEFAULT_IMAGE").is_none() {
        println!("skipped: it takes minutes; set SPRITE_TEST_DEFAULT_IMAGE=1");
        return;
    }
    if !can_build() {
        return;
    }
    let recipe = Recipe::debian(Variant::Default).expect("a recipe");
    let built = image::build(&recipe, &cache(), &Steps::default()).expect("build the image");
    support::assert_sound(&built.path);
    for program in [
        "zsh", "curl", "git", "gh", "less", "tmux", "jq", "rg", "python3", "pip", "gcc", "make",
        "ssh",
    ] {
        let stat = debugfs(&built.path, &format!("stat /usr/bin/{program}"));
        assert!(stat.contains("Inode:"), "{program}: {stat}");
    }
    for program in ["node", "npm", "npx"] {
        let stat = debugfs(&built.path, &format!("stat /usr/local/bin/{program}"));
        assert!(stat.contains("Inode:"), "{program}: {stat}");
    }
    let stat = debugfs(&built.path, "stat /usr/local/lib");
    assert!(
        stat.contains("Mode:  02775") && stat.contains("Group:    50"),
        "{stat}"
    );
}

/// A tarball made by a shell script that runs in the directory `tree`.
fn tarball(directory: &Path, script: &str, arguments: &[&str]) -> PathBuf {
    let (tree, path) = (directory.join("tree"), directory.join("made.tar"));
    fs::create_dir_all(&tree).expect("a directory");
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&tree)
        .status();
    assert!(made.expect("sh").success());
    let packed = Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .args(["-cPf"])
        .arg(&path)
        .args(arguments)
        .status();
    assert!(packed.expect("tar").success());
    path
}

const SMALL_SYSTEM: &str = "mkdir -p etc bin usr/local/bin; printf 'root:x:0:0::/root:/bin/sh\\n' >etc/passwd; \
    echo program >bin/sh; chown 12:34 bin/sh; chmod 4755 bin/sh; ln -s sh bin/ash; ln bin/sh bin/hard; mkfifo pipe; \
    mknod null c 1 3; mkdir dev; mknod dev/zero c 1 5";

#[test]
fn any_tarball_becomes_an_image() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let plain = tarball(home.path(), SMALL_SYSTEM, &["."]);
    let mut tarballs = vec![plain.clone()];
    for (program, suffix) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        let Ok(output) = Command::new(program).arg("-c").arg(&plain).output() else {
            println!("skipped: {program} is missing");
            continue;
        };
        let path = home.path().join(format!("made.tar.{suffix}"));
        fs::write(&path, output.stdout).expect("a file");
        tarballs.push(path);
    }
    let cache = home.path().join("cache");
    for path in tarballs {
        let recipe = Recipe::tar(&path).expect("a recipe");
        let built = image::build(&recipe, &cache, &Silent).expect("build the image");
        support::assert_sound(&built.path);
        assert_eq!(
            cat(&built.path, "/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nsprite:x:1000:1000::/home/sprite:/bin/sh\n"
        );
        let stat = debugfs(&built.path, "stat /bin/hard");
        assert!(
            stat.contains("Mode:  04755") && stat.contains("Links: 2"),
            "{stat}"
        );
        assert!(stat.contains("User:    12   Group:    34"), "{stat}");
        assert!(debugfs(&built.path, "stat /bin/ash").contains("Fast link dest: \"sh\""));
        assert!(debugfs(&built.path, "stat /null").contains("character"));
        assert!(
            !debugfs(&built.path, "ls /dev").contains("zero"),
            "the agent makes its own devices"
        );
    }
    assert_eq!(leftovers(&cache), Vec::<String>::new());
}

fn leftovers(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache).expect("list");
    names
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.ends_with(".build"))
        .collect()
}

#[test]
fn hostile_tarballs_do_not_reach_the_host() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let outside = home.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("precious"), "host").expect("a file");
    let target = outside.display();
    let etc = format!("mkdir -p x; ln -s {target} etc");
    let absolute = format!("--transform=s,^precious,{target}/precious,");
    let cases: [(&str, &str, Vec<String>); 4] = [
        (
            "absolute names",
            "echo hostile >precious",
            vec![absolute, "precious".into()],
        ),
        (
            "names with ..",
            "echo hostile >f",
            vec![
                "--transform=s,^f,../../../../../precious,".into(),
                "f".into(),
            ],
        ),
        (
            "a link, then a file through it",
            "ln -s DIR link; mkdir d; echo hostile >d/precious",
            vec![
                "link".into(),
                "d/precious".into(),
                "--transform=s,^d/,link/,".into(),
            ],
        ),
        ("an /etc that is a link", etc.as_str(), vec![".".into()]),
    ];
    for (name, script, arguments) in &cases {
        let work = home.path().join("work");
        fs::create_dir(&work).expect("a directory");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let path = tarball(
            &work,
            &script.replace("DIR", &target.to_string()),
            &arguments,
        );
        let recipe = Recipe::tar(&path).expect("a recipe");
        let built = image::build(&recipe, &home.path().join("cache"), &Silent);
        println!("{name}: {built:?}");
        assert_eq!(
            fs::read_to_string(outside.join("precious")).expect("a file"),
            "host",
            "{name}"
        );
        assert_eq!(fs::read_dir(&outside).expect("list").count(), 1, "{name}");
        assert_eq!(
            leftovers(&home.path().join("cache")),
            Vec::<String>::new(),
            "{name}"
        );
        fs::remove_dir_all(&work).expect("remove");
    }
}

#[test]
fn damaged_and_foreign_files_are_refused_by_name() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let cache = home.path().join("cache");
    let build = |bytes: &[u8]| {
        let path = home.path().join("file");
        fs::write(&path, bytes).expect("a file");
        let recipe = Recipe::tar(&path).expect("a recipe");
        let error = image::build(&recipe, &cache, &Silent).expect_err("no image");
        let BuildError::Extract { source, .. } = error else {
            panic!("{error:?}")
        };
        source
    };
    assert!(matches!(build(b""), ExtractError::UnknownFormat));
    assert!(matches!(
        build(b"PK\x03\x04 zip"),
        ExtractError::UnknownFormat
    ));
    assert!(matches!(
        build(b"\x1f\x8b\x08 not gzip"),
        ExtractError::Damaged { tool: "gzip", .. }
    ));
    let plain = tarball(home.path(), "head -c 3000000 /dev/urandom >file", &["."]);
    let whole = fs::read(&plain).expect("a file");
    assert!(matches!(
        build(&whole[..whole.len() / 2]),
        ExtractError::Tool(_)
    ));
    let gzip = Command::new("gzip")
        .arg("-c")
        .arg(&plain)
        .output()
        .expect("gzip")
        .stdout;
    assert!(matches!(
        build(&gzip[..gzip.len() / 2]),
        ExtractError::Damaged { .. }
    ));
    assert!(image::cached(&cache).expect("list").is_empty());
    assert_eq!(leftovers(&cache), Vec::<String>::new());
}

#[test]
fn builds_of_one_image_at_once_make_it_once() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let cache = home.path().join("cache");
    let recipe = Recipe::tar(&tarball(home.path(), SMALL_SYSTEM, &["."])).expect("a recipe");
    let steps = Steps::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| image::build(&recipe, &cache, &steps).expect("build the image"));
        }
    });
    let steps = steps.0.into_inner().expect("no panic while it was held");
    assert_eq!(
        steps
            .iter()
            .filter(|step| *step == "write the image")
            .count(),
        1,
        "{steps:?}"
    );
    assert_eq!(image::cached(&cache).expect("list").len(), 1);
}

#[test]
fn what_a_dead_build_left_is_swept_and_a_living_one_is_not() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let cache = home.path().join("cache");
    for letter in ['a', 'b'] {
        fs::create_dir_all(cache.join(format!("{}.build/root/etc", image_id(letter))))
            .expect("directories");
    }
    let living = fs::File::create(cache.join(format!("{}.lock", image_id('b')))).expect("a lock");
    rustix::fs::flock(&living, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    let path = tarball(home.path(), SMALL_SYSTEM, &["."]);
    image::build(&Recipe::tar(&path).expect("a recipe"), &cache, &Silent).expect("build");
    assert_eq!(leftovers(&cache), [format!("{}.build", image_id('b'))]);
}

/// Not a test of its own: the process that [`a_killed_build_leaves_no_process_and_no_mount`] kills.
#[test]
fn builder_that_is_killed() {
    let Some(home) = std::env::var_os("SPRITE_DISK_TEST_BUILDER") else {
        return;
    };
    let home = PathBuf::from(home);
    let recipe = Recipe::tar(&home.join("made.tar")).expect("a recipe");
    let built = image::build(&recipe, &home.join("cache"), &Steps::default());
    println!("built {built:?}");
}

#[test]
fn a_killed_build_leaves_no_process_and_no_mount() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    tarball(home.path(), "head -c 300000000 /dev/urandom >file", &["."]);
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "builder_that_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SPRITE_DISK_TEST_BUILDER", home.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start the builder");
    let output = child.stdout.take().expect("it is piped");
    let extracting = lines(output).any(|line| line.contains("extract the tarball"));
    assert!(extracting, "it began");
    let stage = home.path().join("cache");
    support::eventually("tar runs", || !processes_about(&stage).is_empty());
    child.kill().expect("kill");
    child.wait().expect("wait");
    support::eventually("everything that it started is gone", || {
        processes_about(&stage).is_empty()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&home.path().display().to_string()));
    assert_eq!(loops_of(home.path()), 0);
    let recipe = Recipe::tar(&home.path().join("made.tar")).expect("a recipe");
    image::build(&recipe, &stage, &Silent).expect("the next build works");
    assert_eq!(leftovers(&stage), Vec::<String>::new());
}

/// Processes with the path in their command line.
fn processes_about(path: &Path) -> Vec<u32> {
    let needle = path.display().to_string();
    let processes = fs::read_dir("/proc").expect("processes");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle))
        })
        .collect()
}
