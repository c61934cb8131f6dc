//! Races against processes of ours on their way into the environment.

use std::fs;
use std::time::{Duration, Instant};

use crate::sys::*;

fn newest(mut seen: i64) -> impl FnMut() -> Vec<i64> {
    move || {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let new: Vec<i64> = all.filter(|pid| *pid > seen).collect();
        seen = new.iter().copied().max().unwrap_or(seen);
        new
    }
}

/// Looks into every process from the moment it appears, for so many milliseconds: none may be one of ours then.
pub fn trace_starts(tried: &mut Tried, args: &[String]) {
    const SEIZE: u64 = 0x4206;
    const DETACH: u64 = 17;
    let millis = args.first().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let until = Instant::now() + Duration::from_millis(millis);
    let own = i64::from(std::process::id());
    let mut new = newest(own);
    let mut looked = 0_u64;
    let mut young: Vec<(i64, Instant)> = Vec::new();
    while Instant::now() < until {
        young.extend(new().into_iter().map(|pid| (pid, Instant::now())));
        young.retain(|(_, since)| since.elapsed() < Duration::from_millis(100));
        for (pid, _) in &young {
            looked += 1;
            if let Ok(program) = fs::read_link(format!("/proc/{pid}/exe"))
                && program.to_string_lossy().contains("agent")
            {
                tried.holds("program of a new process", false, program.display());
            }
            if let Ok(memory) = fs::read_to_string(format!("/proc/{pid}/maps"))
                && memory.contains("/agent")
            {
                tried.holds("memory of a new process", false, "is the agent's");
            }
            for fd in fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let target = fs::read_link(fd.path()).unwrap_or_default();
                let own = !target.to_string_lossy().starts_with("socket");
                if !own {
                    tried.holds("descriptor of a new process", false, target.display());
                }
            }
            if call(SYS_PTRACE, &[SEIZE, *pid as u64, 0, 0]).is_ok() {
                let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let ours = program.to_string_lossy().contains("agent");
                tried.holds("trace a new process", !ours, program.display());
                let _ = call(SYS_PTRACE, &[DETACH, *pid as u64, 0, 0]);
            }
        }
    }
    tried.holds(
        "new processes",
        looked > 0,
        format!("looked {looked} times"),
    );
}

/// Stops every process from the moment it appears, until killed.
pub fn stop_starts() {
    const STOP: u64 = 19;
    println!("stopping");
    let mut new = newest(i64::from(std::process::id()));
    let mut young: Vec<(i64, Instant)> = Vec::new();
    loop {
        young.extend(new().into_iter().map(|pid| (pid, Instant::now())));
        young.retain(|(_, since)| since.elapsed() < Duration::from_millis(20));
        for (pid, _) in &young {
            let _ = kill(*pid, STOP);
        }
    }
}
