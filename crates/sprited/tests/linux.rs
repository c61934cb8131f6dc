//! A sprite in a virtual machine is a whole Linux: what needs a kernel of one's own works.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, ready};
use sprite_client::Sprite;

/// Under emulation the largest of them takes minutes.
const LIMIT: Duration = Duration::from_secs(1800);

const FUSE: &str = include_str!("linux/fuse.py");
const TUN: &str = include_str!("linux/tun.py");
const ENGINE: &str = include_str!("linux/engine.sh");

/// Namespaces of a user without any right, as bubblewrap and browsers make them.
const WALLS: &str = "unshare --user --map-root-user --mount --pid --net --ipc --uts --fork --mount-proc \
    bash -c 'id -u; mount -t tmpfs none /mnt && echo mounted; hostname inner && hostname; ls -d /proc/[0-9]* | wc -l'";

/// What a person would do, with the programs themselves: minutes of downloads.
const PROGRAMS: &str = "set -ex; sudo apt-get update -q; \
    sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        bubblewrap busybox-static chromium docker-cli docker.io fuse-overlayfs fuse3 iptables; \
    bwrap --ro-bind / / --dev /dev --proc /proc --unshare-all true; \
    mkdir lower upper work merged; echo below > lower/file; \
    fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work merged; cat merged/file; fusermount3 -u merged; \
    echo '<p id=p></p><script>p.textContent = 6 * 7</script>' > page.html; \
    chromium --headless --disable-gpu --dump-dom file://$PWD/page.html | grep 42; \
    (sudo dockerd >dockerd.log 2>&1 &); \
    until sudo docker version >/dev/null 2>&1; do sleep 1; done; \
    mkdir image; cp /bin/busybox image; tar -C image -c . | sudo docker import - busybox; \
    sudo docker run --rm --memory 64m --pids-limit 50 busybox /busybox ping -c 1 10.0.0.2";

/// A sprite where a whole Linux is to be expected.
async fn whole_linux() -> Option<(Server, Sprite)> {
    if driver() != "microvm" {
        eprintln!(
            "skipped: machines of driver {} share the host's kernel; run cargo xtask kvm-test",
            driver()
        );
        return None;
    }
    if !ready() {
        return None;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("linux").await;
    Some((server, sprite))
}

/// Runs a command; fails with all that it said.
async fn run(sprite: &Sprite, argv: &[&str]) -> String {
    let command = sprite.command(argv[0]).args(argv[1..].iter().copied());
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{} takes more than {LIMIT:?}", argv[0]))
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), 0, "{stdout}\n{stderr}");
    stdout
}

#[tokio::test]
async fn a_program_serves_a_file_system() {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    let said = run(&sprite, &["sudo", "python3", "-c", FUSE]).await;
    assert_eq!(said, "from user space\n");
    server.finish();
}

#[tokio::test]
async fn a_program_gets_an_interfaces_packets() {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    assert_eq!(
        run(&sprite, &["sudo", "python3", "-c", TUN]).await,
        "a packet came\n"
    );
    server.finish();
}

#[tokio::test]
async fn a_user_builds_walls_of_its_own() {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    let said = run(&sprite, &["bash", "-c", WALLS]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["0", "mounted", "inner"]);
    let processes: u32 = lines[3].parse().unwrap();
    assert!(processes <= 4, "{processes} processes are seen");
    server.finish();
}

#[tokio::test]
async fn container_engines_find_what_they_are_built_of() {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    let said = run(&sprite, &["sudo", "bash", "-c", ENGINE]).await;
    assert_eq!(
        said,
        "below\nabove\nlistening\nacross the bridge\na limit held\n"
    );
    server.finish();
}

#[tokio::test]
#[ignore = "many minutes and the network: cargo xtask kvm-test -- docker_chromium"]
async fn docker_chromium_bubblewrap_and_fuse_run() {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    run(&sprite, &["bash", "-c", PROGRAMS]).await;
    server.finish();
}
