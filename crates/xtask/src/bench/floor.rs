//! What the same work costs with bare tools: the floor that the server is measured against.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::program::Program;

/// A machine by hand: clone the disk and make the clone durable, a network namespace with a veth pair and its
/// firewall, mount the disk, and run `true` in it. Its own mount namespace takes the mount away with it.
const MACHINE: &str = r#"
set -eu
cp --reflink=always "$1" "$2.ext4"
sync "$2.ext4"
ip netns add "$3"
ip link add "$3" type veth peer name eth0 netns "$3"
ip addr add 100.127.255.2/31 dev "$3"
ip link set "$3" up
ip -n "$3" addr add 100.127.255.3/31 dev eth0
ip -n "$3" link set eth0 up
ip netns exec "$3" nft -f - <<'RULES'
table ip floor {
  chain c {
    type filter hook input priority 0; policy accept;
    ip saddr 10.0.0.0/8 drop
  }
}
RULES
mkdir "$2"
unshare --mount sh -euc 'mount -o loop "$1.ext4" "$1"
  exec nsenter --net=/run/netns/"$2" unshare --mount --uts --ipc --pid --cgroup --fork chroot "$1" /bin/true' sh "$2" "$3"
"#;

/// Takes the machine by hand away again.
const MACHINE_GONE: &str = r#"
ip netns del "$2" || true
ip link del "$2" 2>/dev/null || true
rmdir "$1" && rm -f "$1.ext4"
"#;

/// Times one machine by hand, on a clone of `image` in the same pool.
///
/// # Errors
/// A tool is missing or fails.
pub fn machine(image: &Path, number: usize) -> Outcome<Duration> {
    let place = image.with_file_name(format!(".floor-{}-{number}", std::process::id()));
    let name = format!("floor{}x{number}", std::process::id() % 10_000);
    let begun = Instant::now();
    let made = Program::new("sh")
        .args(["-c", MACHINE, "sh"])
        .args([image, &place])
        .args([&name])
        .read();
    let took = begun.elapsed();
    let gone = Program::new("sh")
        .args(["-c", MACHINE_GONE, "sh"])
        .args([&place])
        .args([&name])
        .read();
    made?;
    gone?;
    Ok(took)
}

/// Times `/bin/true` in all namespaces of a process.
///
/// # Errors
/// `nsenter` is missing or fails.
pub fn enter(pid: u32) -> Outcome<Duration> {
    let begun = Instant::now();
    let program = Program::new("nsenter").args(["--all", "--target", &pid.to_string()]);
    program.args(["/bin/true"]).read()?;
    Ok(begun.elapsed())
}

/// Times a number of bytes through a pipe from the same program that the sprite runs.
///
/// # Errors
/// The program fails.
pub fn pipe(bytes: u64) -> Outcome<Duration> {
    let step = || Failure::io("read from a local pipe");
    let begun = Instant::now();
    let mut child = Command::new("head")
        .args(["-c", &bytes.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(step())?;
    let mut stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let mut buffer = vec![0; 1 << 20];
    while stdout.read(&mut buffer).map_err(step())? > 0 {}
    child.wait().map_err(step())?;
    Ok(begun.elapsed())
}

/// The base image in a data directory's pool.
///
/// # Errors
/// There is none.
pub fn base_image(data: &Path) -> Outcome<PathBuf> {
    let images = data.join("pool/images");
    std::fs::read_dir(&images)
        .map_err(Failure::io(format!("list {}", images.display())))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ext4")
        })
        .ok_or_else(|| Failure::Check(format!("{} holds no base image", images.display())))
}
