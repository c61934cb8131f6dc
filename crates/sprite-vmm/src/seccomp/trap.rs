//! What happens after a forbidden call.

use std::io;

use vmm_sys_util::signal::register_signal_handler;

/// The status that the program ends with, as Firecracker's does.
const STATUS: libc::c_int = 148;

/// Where the number of the call is in what the signal brings: behind signal, error, code, padding and the
/// address of the call. Source: `siginfo_t` in `include/uapi/asm-generic/siginfo.h`.
const NUMBER_AT: usize = 24;

/// Has a forbidden call told on standard error before the program ends.
///
/// # Errors
/// The system refuses the signal's handler.
pub fn tell_of_forbidden_calls() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, tell).map_err(Into::into)
}

extern "C" fn tell(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a `siginfo_t` that is valid while the handler runs, and is longer than this.
    let number = unsafe { info.cast::<u8>().add(NUMBER_AT).cast::<i32>().read() };
    let mut text = *b"ERROR a thread made system call 0000, which is not its business\n";
    let mut rest = number.unsigned_abs();
    for place in (32..36).rev() {
        // A digit is below ten.
        text[place] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    // SAFETY: both calls are allowed in signal handlers, and the text lives until the first returns.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::_exit(STATUS);
    }
}
