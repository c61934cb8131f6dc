//! The opposite of what each kind of thread is for, tried by a thread with that kind's filter.
//!
//! Each attempt is made in a process of its own, which is this test's program once more: a forbidden call ends
//! the whole process.

use std::process::Command;

use sprite_vmm::seccomp::{Thread, restrict, tell_of_forbidden_calls};

/// Says to the process what to try, as `thread attempt`.
const TASK: &str = "SPRITE_VMM_FORBIDDEN";

/// The status of a process that called what it may not.
const FORBIDDEN: i32 = 148;

/// The status of a process whose calls all came back.
const ALLOWED: i32 = 77;

const THREADS: [Thread; 5] = [
    Thread::Api,
    Thread::Control,
    Thread::Vcpu,
    Thread::EventLoop,
    Thread::BlockWorker,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Nothing,
    Execute,
    Fork,
    Trace,
    Mount,
    Signal,
    InternetSocket,
    UnixSocket,
    Open,
    ExecutableMemory,
    MakeExecutable,
    TypeIntoTerminal,
    CreateMachine,
}

const ATTEMPTS: [Attempt; 13] = [
    Attempt::Nothing,
    Attempt::Execute,
    Attempt::Fork,
    Attempt::Trace,
    Attempt::Mount,
    Attempt::Signal,
    Attempt::InternetSocket,
    Attempt::UnixSocket,
    Attempt::Open,
    Attempt::ExecutableMemory,
    Attempt::MakeExecutable,
    Attempt::TypeIntoTerminal,
    Attempt::CreateMachine,
];

/// Whether the thread may.
fn is_allowed(thread: Thread, attempt: Attempt) -> bool {
    match attempt {
        Attempt::Nothing => true,
        Attempt::Open => thread == Thread::Control,
        Attempt::UnixSocket => thread == Thread::EventLoop,
        Attempt::Execute
        | Attempt::Fork
        | Attempt::Trace
        | Attempt::Mount
        | Attempt::Signal
        | Attempt::InternetSocket
        | Attempt::ExecutableMemory
        | Attempt::MakeExecutable
        | Attempt::TypeIntoTerminal
        | Attempt::CreateMachine => false,
    }
}

/// Makes the call. Whether the system would have done it does not matter: the filter comes first.
fn attempt(attempt: Attempt) {
    let call = |number: libc::c_long, arguments: [libc::c_long; 6]| {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the arguments are numbers and null pointers, which the kernel refuses by itself; mappings
        // are made where nothing is.
        unsafe { libc::syscall(number, a, b, c, d, e, f) };
    };
    let execute = libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    let private = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    match attempt {
        Attempt::Nothing => {}
        Attempt::Execute => call(libc::SYS_execve, [0; 6]),
        Attempt::Fork => call(libc::SYS_clone3, [0; 6]),
        Attempt::Trace => call(libc::SYS_ptrace, [-1, 0, 0, 0, 0, 0]),
        Attempt::Mount => call(libc::SYS_mount, [0; 6]),
        Attempt::Signal => call(libc::SYS_kill, [0, 0, 0, 0, 0, 0]),
        Attempt::InternetSocket => call(
            libc::SYS_socket,
            [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0],
        ),
        Attempt::UnixSocket => call(
            libc::SYS_socket,
            [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0],
        ),
        Attempt::Open => call(libc::SYS_openat, [-1, 0, 0, 0, 0, 0]),
        Attempt::ExecutableMemory => call(libc::SYS_mmap, [0, 4096, execute, private, -1, 0]),
        Attempt::MakeExecutable => call(libc::SYS_mprotect, [0, 4096, execute, 0, 0, 0]),
        // TIOCSTI and KVM_CREATE_VM; the descriptor is no matter. Source: `asm-generic/ioctls.h`, `linux/kvm.h`.
        Attempt::TypeIntoTerminal => call(libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0, 0]),
        Attempt::CreateMachine => call(libc::SYS_ioctl, [-1, 0xae01, 0, 0, 0, 0]),
    }
}

#[test]
fn each_thread_may_do_what_is_its_business_and_nothing_else() {
    if let Ok(task) = std::env::var(TASK) {
        perform(&task);
    }
    for (index, thread) in THREADS.into_iter().enumerate() {
        for (number, attempt) in ATTEMPTS.into_iter().enumerate() {
            let output = Command::new(std::env::current_exe().expect("this program has a path"))
                .args([
                    "--exact",
                    "each_thread_may_do_what_is_its_business_and_nothing_else",
                ])
                .env(TASK, format!("{index} {number}"))
                .output()
                .expect("this program starts");
            let expected = match is_allowed(thread, attempt) {
                true => ALLOWED,
                false => FORBIDDEN,
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{thread:?} tries {attempt:?}: {said}"
            );
            if expected == FORBIDDEN {
                assert!(said.contains("which is not its business"), "{said}");
            }
        }
    }
}

/// Tries one thing as one kind of thread, and ends the process.
fn perform(task: &str) -> ! {
    let (thread, what) = task.split_once(' ').expect("two numbers");
    let thread = THREADS[thread.parse::<usize>().expect("a number")];
    let what = ATTEMPTS[what.parse::<usize>().expect("a number")];
    tell_of_forbidden_calls().expect("the handler is installed");
    restrict(thread).expect("the filter is taken");
    attempt(what);
    std::process::exit(ALLOWED);
}
