//! What hostile bytes reach, each as one function of bytes: a guest's rings, a client's requests, a snapshot's
//! files, a guest's console.
//!
//! The programs in `fuzz/` hand a fuzzer's bytes to these functions, tests hand them the seeds and what comes of
//! the seeds by chance. A function returns, whatever the bytes; it panics where this program would have panicked or
//! would have broken a promise. Nothing of a run is left for the next one, and no threads are involved, so the same
//! bytes always do the same.
//!
//! This is a part of the crate, and not of `fuzz/`, because what is tried is not public; it is compiled only for
//! tests and with the feature `fuzzing`.

mod console;
mod input;
pub mod seeds;

#[cfg(test)]
mod tests;

pub(crate) use input::Input;

/// Takes a fuzzer's bytes; panics if a promise is broken by them.
pub type Entry = fn(&[u8]);

/// Every entry with its name.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("chain", chain),
    ("block", block),
    ("net", net),
    ("vsock", vsock),
    ("control", control),
    ("snapshot", snapshot),
    ("console", console),
];

/// Follows a chain of descriptors.
pub fn chain(bytes: &[u8]) {
    crate::virtio::fuzzing::chain(bytes);
}

/// Does with a disk what the bytes say.
pub fn block(bytes: &[u8]) {
    crate::virtio::fuzzing::block(bytes);
}

/// Does with a network card what the bytes say.
pub fn net(bytes: &[u8]) {
    crate::virtio::fuzzing::net(bytes);
}

/// Does with a socket between guest and host what the bytes say.
pub fn vsock(bytes: &[u8]) {
    crate::virtio::fuzzing::vsock(bytes);
}

/// Sends the bytes to the control socket, in pieces.
pub fn control(bytes: &[u8]) {
    crate::api::fuzzing::control(bytes);
}

/// Reads the bytes as files of a snapshot.
pub fn snapshot(bytes: &[u8]) {
    crate::snapshot::fuzzing::snapshot(bytes);
}

/// Has a guest print and set its serial port as the bytes say.
pub fn console(bytes: &[u8]) {
    console::console(bytes);
}

/// Says nothing from now on of what guests do wrong.
pub fn quiet() {
    let target = crate::log::LogTarget {
        log_path: None,
        level: Some(crate::log::Level::Off),
    };
    crate::log::configure(&target).expect("no file is opened");
}
