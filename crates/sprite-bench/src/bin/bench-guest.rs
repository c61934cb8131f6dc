//! The first program of the guest whose disk and memory are measured. It does what it is asked, see
//! [`sprite_bench::talk`].

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use socket2::{Domain, SockAddr, Socket, Type};
use sprite_bench::sequential;
use sprite_bench::talk::{Ask, DONE, PAGES, PORT};

/// The host's address. Source: vsock(7).
const HOST: u32 = 2;

/// The archive's modules, and the file that names them in their order.
const MODULES: &str = "/modules";

const DISK: &str = "/dev/vda";
const DISK_WITHIN: Duration = Duration::from_secs(60);
const FILE: &str = "/disk/file";

const PAGE: usize = 4096;

/// Between two attempts to reach the host: nothing tells when it listens.
const AGAIN: Duration = Duration::from_millis(20);

fn main() {
    if let Err(error) = prepare() {
        println!("the guest: {error}");
    }
    // Touched now, so that it is in the first snapshot.
    let mut memory = vec![1_u8; PAGES * PAGE];
    loop {
        // A host that does not listen, or that went away with its monitor.
        let _ = serve(&mut memory);
        std::thread::sleep(AGAIN);
    }
}

/// Finds the host and the disk.
fn prepare() -> io::Result<()> {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc")] {
        fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None)?;
    }
    for name in fs::read_to_string(format!("{MODULES}/order"))?.lines() {
        let module = File::open(Path::new(MODULES).join(name))?;
        rustix::system::finit_module(&module, c"", 0)?;
    }
    let begun = Instant::now();
    while !Path::new(DISK).exists() && begun.elapsed() < DISK_WITHIN {
        std::thread::sleep(AGAIN);
    }
    fs::create_dir_all("/disk")?;
    mount(DISK, "/disk", "ext4", MountFlags::NOATIME, None)?;
    Ok(())
}

/// Connects to the host and does what it asks until it has enough.
fn serve(memory: &mut [u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    socket.connect(&SockAddr::vsock(HOST, PORT))?;
    let mut lines = BufReader::new(&socket).lines();
    while let Some(line) = lines.next().transpose()? {
        let answer = match line.parse::<Ask>() {
            Ok(ask) => match perform(ask, memory) {
                Ok(()) => DONE.to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        (&socket).write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

fn perform(ask: Ask, memory: &mut [u8]) -> io::Result<()> {
    let file = Path::new(FILE);
    match ask {
        Ask::Clear => {
            if file.exists() {
                fs::remove_file(file)?;
            }
            sequential::forget_caches()
        }
        Ask::Write(mebibytes) => sequential::write(file, mebibytes << 20),
        Ask::Forget => sequential::forget_caches(),
        Ask::Read => sequential::read(file).map(drop),
        Ask::Dirty => {
            for page in memory.chunks_mut(PAGE).step_by(2) {
                // Never zero: such a page would not be written.
                page.iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(2));
            }
            Ok(())
        }
    }
}
