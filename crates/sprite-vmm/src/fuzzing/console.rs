//! A guest that prints.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Input;
use crate::bus::BusDevice;
use crate::console::Console;
use crate::serial::{Serial, SerialState};

/// The largest that a console's file may become, and what is kept of it.
const FILE_LIMIT: u64 = 1 << 20;
const KEPT: usize = 32 << 10;

fn port(file: &File, state: Option<SerialState>) -> Serial {
    let interrupt = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
    let console = Console::new(file.try_clone().expect("cloned")).expect("a console");
    match state {
        None => Serial::new(interrupt, console),
        Some(state) => Serial::restore(state, interrupt, console).expect("it was saved"),
    }
}

/// Bytes are registers that are read and written, text that is printed, and saves.
///
/// # Panics
/// The console's file has no bound or does not end with the newest output, or the port does not load what it saved.
pub(super) fn console(bytes: &[u8]) {
    let file = File::from(memfd_create("console", MemfdFlags::CLOEXEC).expect("a file in memory"));
    let mut serial = port(&file, None);
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => {
                let (offset, len) = (u64::from(input.byte()), usize::from(input.byte() % 4));
                serial.write(offset, input.bytes(len));
            }
            1 => {
                let (offset, len) = (u64::from(input.byte()), usize::from(input.byte() % 4));
                serial.read(offset, &mut vec![0; len]);
            }
            2 => {
                let repeat = 1 << (input.byte() % 9);
                let len = usize::from(input.byte());
                let text = input.bytes(len);
                // The port may be set up to take no text: then it is a register that is written.
                for byte in text.iter().cycle().take(text.len() * repeat) {
                    serial.write(0, &[*byte]);
                }
            }
            _ => {
                serial.put_rest();
                let state = serial.save();
                serial = port(&file, Some(state.clone()));
                assert_eq!(serial.save(), state);
            }
        }
        assert!(file.metadata().expect("a length").len() <= FILE_LIMIT);
    }
    serial.put_rest();
    let newest = serial.newest();
    assert!(newest.len() <= KEPT);
    let len = file.metadata().expect("a length").len();
    assert!(len <= FILE_LIMIT);
    let mut end = vec![0; newest.len()];
    file.read_exact_at(&mut end, len - newest.len() as u64)
        .expect("the file has the newest output");
    assert!(end == newest, "the file ends with the newest output");
}
