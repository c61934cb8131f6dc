//! Writes the seeds of every target to `DIRECTORY/TARGET/NAME`: `seeds DIRECTORY`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("seeds DIRECTORY");
        return ExitCode::from(2);
    };
    match write(Path::new(&directory)) {
        Ok(count) => {
            println!("{count} seeds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("write seeds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> std::io::Result<usize> {
    let monitor = sprite_vmm::fuzzing::seeds::all();
    let monitor = monitor
        .iter()
        .map(|seed| (seed.entry, seed.name, &seed.bytes));
    let agent = sprite_agent_api::fuzzing::seeds();
    let agent = agent
        .iter()
        .map(|seed| (seed.entry, seed.name, &seed.bytes));
    let clients = sprite_server::fuzzing::seeds();
    let clients = clients
        .iter()
        .map(|seed| (seed.entry, seed.name, &seed.bytes));
    let mut count = 0;
    let archives = sprite_archive::fuzzing::seeds();
    let archives = archives
        .iter()
        .map(|seed| ("archive", seed.name, &seed.bytes));
    for (entry, name, bytes) in monitor.chain(agent).chain(clients).chain(archives) {
        let of_entry = directory.join(entry);
        std::fs::create_dir_all(&of_entry)?;
        std::fs::write(of_entry.join(name), bytes)?;
        count += 1;
    }
    Ok(count)
}
