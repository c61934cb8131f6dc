//! Using up what there is.

use std::fs::File;
use std::time::Duration;

use crate::sys::*;

/// Forks until nothing more can be forked, and holds on.
pub fn fork_bomb() {
    let mut refused = 0;
    let mut forked = 0_u64;
    while refused < 100 {
        match fork() {
            Ok(0) => loop {
                std::thread::park_timeout(Duration::from_secs(3600));
            },
            Ok(_) => forked += 1,
            Err(_) => refused += 1,
        }
    }
    println!("full {forked}");
    loop {
        std::thread::park();
    }
}

/// Takes memory and writes to it until it is ended.
pub fn hog() {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; 8 << 20]);
    }
}

/// Makes files until there are no more inodes.
pub fn files_bomb(tried: &mut Tried, args: &[String]) {
    let dir = args.first().map_or("/home/sprite/bomb", String::as_str);
    for n in 0_u64.. {
        let sub = format!("{dir}/{}", n / 1000);
        let made = std::fs::create_dir_all(&sub).and_then(|()| File::create(format!("{sub}/{n}")));
        if let Err(error) = made {
            const ENOSPC: i32 = 28;
            let full = error.raw_os_error() == Some(ENOSPC);
            tried.holds("inodes", full, format!("after {n}: {error}"));
            return;
        }
    }
}
