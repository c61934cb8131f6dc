//! A sprite in a virtual machine is a whole Linux: what needs a kernel of one's own works.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, ready};
use sprite_client::{Sprite, Stdio};

/// Under emulation the largest of them takes more than half an hour.
const LIMIT: Duration = Duration::from_secs(5400);

const FUSE: &str = include_str!("linux/fuse.py");
const TUN: &str = include_str!("linux/tun.py");
const ENGINE: &str = include_str!("linux/engine.sh");

/// Namespaces of a user without any right, as bubblewrap and browsers make them.
const WALLS: &str = "unshare --user --map-root-user --mount --pid --net --ipc --uts --fork --mount-proc \
    bash -c 'id -u; mount -t tmpfs none /mnt && echo mounted; hostname inner && hostname; ls -d /proc/[0-9]* | wc -l'";

/// What a person would do, with the programs themselves: installs them, and then the rest.
fn with_packages(packages: &str, rest: &str) -> String {
    format!(
        "exec 2>&1; set -ex; sudo apt-get update -q
        sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {packages}
        {rest}"
    )
}

const BUBBLEWRAP_AND_FUSE: &str = "bwrap --ro-bind / / --dev /dev --proc /proc --unshare-all true
    mkdir lower upper work merged; echo below > lower/file
    fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work merged
    cat merged/file; fusermount3 -u merged";

const CHROMIUM: &str = "echo '<p id=p></p><script>p.textContent = 6 * 7</script>' > page.html
    chromium --headless --disable-gpu --dump-dom file://$PWD/page.html | grep 42";

const DOCKER: &str = "(sudo dockerd >dockerd.log 2>&1 &)
    until sudo docker version >/dev/null 2>&1; do sleep 1; done
    mkdir image; cp /bin/busybox image; tar -C image -c . | sudo docker import - busybox
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

/// Runs a script and repeats what it says as it says it: whoever looks into a run that takes too long sees how far it
/// came.
async fn follow(sprite: &Sprite, script: &str) {
    let command = sprite.command("bash").args(["-c", script]);
    let mut child = command.stdout(Stdio::Piped).spawn().await.unwrap();
    let mut said = child.stdout.take().expect("it is piped");
    while let Some(chunk) = said.chunk().await.unwrap() {
        eprint!("{}", String::from_utf8_lossy(&chunk));
    }
    assert_eq!(child.wait().await.unwrap().code(), 0);
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

async fn programs_run(packages: &str, rest: &str) {
    let Some((server, sprite)) = whole_linux().await else {
        return;
    };
    let script = with_packages(packages, rest);
    let followed = tokio::time::timeout(LIMIT, follow(&sprite, &script)).await;
    followed.unwrap_or_else(|_| panic!("it takes more than {LIMIT:?}"));
    server.finish();
}

#[tokio::test]
#[ignore = "many minutes and the network: cargo xtask kvm-test -- programs_"]
async fn programs_bubblewrap_and_fuse_overlayfs_run() {
    programs_run("bubblewrap fuse-overlayfs fuse3", BUBBLEWRAP_AND_FUSE).await;
}

#[tokio::test]
#[ignore = "many minutes and the network: cargo xtask kvm-test -- programs_"]
async fn programs_chromium_runs_in_its_own_walls() {
    programs_run("chromium", CHROMIUM).await;
}

#[tokio::test]
#[ignore = "many minutes and the network: cargo xtask kvm-test -- programs_"]
async fn programs_docker_runs() {
    programs_run("busybox-static docker-cli docker.io iptables", DOCKER).await;
}
