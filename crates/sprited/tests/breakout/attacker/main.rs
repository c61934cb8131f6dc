//! A hostile program: built alone and statically by the break-out tests, and run inside a sprite, or in the
//! agent's place.
//!
//! Every attempt is one line of its output: `refused NAME HOW`, or `BROKE NAME WHAT` if it worked. The last line
//! is `done COUNT`, so that a report that was cut off is not taken for a good one.
#![allow(dead_code, reason = "constants are listed whole")]

mod agent;
mod files;
mod kernel;
mod monitor;
mod mounts;
mod network;
mod race;
mod resources;
mod sys;

use std::io::Write;

use sys::Tried;

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let mut tried = Tried::default();
    match what.as_str() {
        "kernel" => kernel::all(&mut tried),
        "files" => files::all(&mut tried, &rest),
        "names" => files::names(&mut tried, &rest),
        "network" => network::all(&mut tried, &rest),
        "serve" => network::serve(),
        "trace-starts" => race::trace_starts(&mut tried, &rest),
        "stop-starts" => race::stop_starts(),
        "fork-bomb" => resources::fork_bomb(),
        "hog" => resources::hog(),
        "files-bomb" => resources::files_bomb(&mut tried, &rest),
        "launch" => agent::launch(),
        "run" => agent::run(),
        "--version" => return monitor::say_version(),
        "--api-sock" => {
            monitor::all(&mut tried);
            println!("tried {}", tried.lines.len());
            // Only the last words of a monitor are kept.
            tried.lines.retain(|line| line.starts_with("BROKE"));
        }
        _ => std::process::exit(2),
    }
    let report = tried.report();
    // Whoever does not read gets no report, and says so.
    let _ = std::io::stdout().write_all(report.as_bytes());
}
