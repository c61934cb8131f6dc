//! `sprite-vmm`: one process, one machine, one control socket.
//!
//! | thread | does |
//! |---|---|
//! | main | owns the machine: does what the control socket is asked, and ends the program when the guest ends |
//! | `api` | looks after the clients of the control socket |
//! | `vcpu0`, … | run the guest |
//! | the devices' | move the guest's data |
//!
//! Ends with status 0 when the guest restarted or powered off, 1 when something failed, 2 for a wrong command
//! line, and 148 when a thread called what it has no business calling.

mod args;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use args::{Args, Run, Seccomp};
use sprite_vmm::api::Server;
use sprite_vmm::command::{Command, MachineState};
use sprite_vmm::control::{CommandError, Controller, VERSION, desk};
use sprite_vmm::end::End;
use sprite_vmm::failure::chain;
use sprite_vmm::log;
use sprite_vmm::metrics::MetricsTarget;
use sprite_vmm::seccomp::{self, Thread};
use sprite_vmm::virtio::{ThreadSetup, unrestricted};
use sprite_vmm::vm::KvmHypervisor;

/// The program did not get as far as a guest, or lost it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] log::LogError),
    #[error(transparent)]
    Metrics(CommandError),
    #[error("catch forbidden calls")]
    Catch(#[source] io::Error),
    #[error("make control socket {path}")]
    Socket {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("start the control socket's thread")]
    Thread(#[source] io::Error),
    #[error("serve the control socket")]
    Serve(#[source] io::Error),
}

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Args::Version) => {
            println!("sprite-vmm {VERSION}");
            ExitCode::SUCCESS
        }
        Ok(Args::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Args::Run(run)) => match start(&run) {
            Ok(end) if end.is_orderly() => {
                log::info(format_args!("{end}"));
                ExitCode::SUCCESS
            }
            Ok(end) => {
                log::error(format_args!("{end}"));
                ExitCode::FAILURE
            }
            Err(failure) => {
                log::error(format_args!("{}", chain(&failure)));
                ExitCode::FAILURE
            }
        },
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::from(2)
        }
    }
}

fn start(run: &Run) -> Result<End, Failure> {
    log::configure(&run.log)?;
    end_with_any_panic();
    if run.seccomp == Seccomp::On {
        seccomp::share_one_heap();
        seccomp::tell_of_forbidden_calls().map_err(Failure::Catch)?;
    }
    let server = Server::bind(&run.socket).map_err(|source| Failure::Socket {
        path: run.socket.display().to_string(),
        source,
    })?;
    let ended = serve(run, server);
    // The program ends with its guest: nobody is to connect to what is left of it.
    let _ = std::fs::remove_file(&run.socket);
    ended
}

fn serve(run: &Run, mut server: Server) -> Result<End, Failure> {
    let (sender, desk) = desk().map_err(Failure::Serve)?;
    let seccomp = run.seccomp;
    std::thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || {
            let served = restrict(seccomp, Thread::Api).and_then(|()| server.run(&sender));
            if let Err(error) = served {
                // A machine that nobody can control is worse than none.
                log::error(format_args!("serve the control socket: {error}"));
                std::process::exit(1);
            }
        })
        .map_err(Failure::Thread)?;

    let setup: ThreadSetup = match seccomp {
        Seccomp::On => Arc::new(|kind| seccomp::restrict(kind.into())),
        Seccomp::Off => unrestricted(),
    };
    let mut controller = Controller::new(KvmHypervisor::new(setup), run.id.clone());
    if let Some(path) = &run.metrics {
        let target = MetricsTarget {
            metrics_path: path.clone(),
        };
        controller
            .handle(Command::SetMetrics(target))
            .map_err(Failure::Metrics)?;
    }
    let mut free = true;
    let end = desk
        .serve(&mut controller, |controller| {
            // All that needs more than snapshots and metrics do is done once there is a machine.
            if free && controller.machine_state() != MachineState::NotStarted {
                restrict(seccomp, Thread::Control)?;
                free = false;
            }
            Ok(())
        })
        .map_err(Failure::Serve)?;
    controller.flush_at_end();
    Ok(end)
}

fn restrict(seccomp: Seccomp, thread: Thread) -> io::Result<()> {
    match seccomp {
        Seccomp::On => seccomp::restrict(thread),
        Seccomp::Off => Ok(()),
    }
}

/// A thread that panics takes the program with it: what is left could neither be trusted nor controlled.
fn end_with_any_panic() {
    std::panic::set_hook(Box::new(|panic| {
        log::error(format_args!("{panic}"));
        std::process::exit(1);
    }));
}
