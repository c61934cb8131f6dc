//! A vCPU and its thread.
//!
//! ```text
//! paused ── Run ──▶ running ── Pause ──▶ paused ── Save ──▶ paused
//! ```
//! A thread begins paused. While it is paused it waits for commands; while it runs it is in KVM, and whoever
//! sends a command gets it out of there ([`Kick`]). Before it pauses it enters KVM once more without running
//! the guest, so that an access to a device that was just answered is finished and the state is whole.
//!
//! When the guest ends, the vCPU that noticed pauses itself; the others are stopped by whoever takes the
//! machine apart.

mod exit;
mod kick;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;

use crate::arch::native::state::{self, CpuState, StateError};
use crate::arch::native::time::{Cpu, Moment};
use crate::bus::Bus;
use crate::end::EndSignal;
use crate::virtio::{ThreadKind, ThreadSetup, spawn};

use exit::Next;
use kick::Kick;

pub use kick::install_handler;

/// Everything that a vCPU works with.
pub struct Vcpu {
    /// Which one.
    pub id: u8,
    /// KVM's side of it.
    pub fd: VcpuFd,
    /// What it says of itself.
    pub cpuid: CpuId,
    /// Whether its TSC counts at another speed than the host's.
    pub scaled: bool,
    /// The model-specific registers that are saved.
    pub msrs: Arc<[u32]>,
    /// Devices in memory.
    pub memory_bus: Arc<Bus>,
    /// Devices at ports.
    pub port_bus: Arc<Bus>,
    /// Where the guest's end is told.
    pub end: Arc<EndSignal>,
}

enum Command {
    Run,
    Pause {
        done: Sender<()>,
    },
    Save {
        moment: Moment,
        done: Sender<Result<Box<CpuState>, StateError>>,
    },
}

/// The thread has ended, which it does by a panic alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reach the thread of vCPU {vcpu}")]
pub struct ThreadGone {
    /// Which one.
    pub vcpu: u8,
}

/// A vCPU's state could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// No thread.
    #[error(transparent)]
    Gone(#[from] ThreadGone),
    /// KVM refuses.
    #[error("save vCPU {vcpu}")]
    State {
        /// Which one.
        vcpu: u8,
        /// What failed.
        #[source]
        source: StateError,
    },
}

/// A running thread of a vCPU. Dropping it stops the vCPU wherever it is.
pub struct VcpuHandle {
    id: u8,
    /// Taken when the thread is to end.
    commands: Option<Sender<Command>>,
    kick: Arc<Kick>,
    thread: Option<JoinHandle<()>>,
}

/// A pause that was asked for.
#[must_use]
pub struct Pausing {
    vcpu: u8,
    done: Receiver<()>,
}

impl Pausing {
    /// Waits until the vCPU stands still.
    ///
    /// # Errors
    /// [`ThreadGone`].
    pub fn wait(self) -> Result<(), ThreadGone> {
        self.done.recv().map_err(|_| ThreadGone { vcpu: self.vcpu })
    }
}

impl VcpuHandle {
    /// Starts the thread; the vCPU is paused.
    ///
    /// # Errors
    /// There is no thread, or its setup failed.
    pub fn start(vcpu: Vcpu, setup: &ThreadSetup) -> io::Result<VcpuHandle> {
        let (commands, received) = mpsc::channel();
        let kick = Arc::new(Kick::default());
        let id = vcpu.id;
        let registered = Arc::clone(&kick);
        let thread = spawn(format!("vcpu{id}"), ThreadKind::Vcpu, setup, move || {
            serve(vcpu, &received, &registered);
        })?;
        Ok(VcpuHandle {
            id,
            commands: Some(commands),
            kick,
            thread: Some(thread),
        })
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// [`ThreadGone`].
    pub fn run(&self) -> Result<(), ThreadGone> {
        self.send(Command::Run)
    }

    /// Asks it to stand still. Several can be asked before the first is waited for.
    ///
    /// # Errors
    /// [`ThreadGone`].
    pub fn pause(&self) -> Result<Pausing, ThreadGone> {
        let (done, told) = mpsc::channel();
        self.send(Command::Pause { done })?;
        Ok(Pausing {
            vcpu: self.id,
            done: told,
        })
    }

    /// Its state, while it is paused; its time as of `moment`.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self, moment: Moment) -> Result<CpuState, SaveError> {
        let (done, told) = mpsc::channel();
        self.send(Command::Save { moment, done })?;
        let saved = told.recv().map_err(|_| ThreadGone { vcpu: self.id })?;
        saved
            .map(|state| *state)
            .map_err(|source| SaveError::State {
                vcpu: self.id,
                source,
            })
    }

    fn send(&self, command: Command) -> Result<(), ThreadGone> {
        let gone = ThreadGone { vcpu: self.id };
        let commands = self.commands.as_ref().ok_or(gone)?;
        commands.send(command).map_err(|_| gone)?;
        // After the command: who is woken finds it.
        self.kick.kick();
        Ok(())
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.kick.kick();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been told by itself.
            let _ = thread.join();
        }
    }
}

/// The thread: commands while it is paused, the guest while it is not.
fn serve(mut vcpu: Vcpu, commands: &Receiver<Command>, kick: &Kick) {
    let _registered = kick.register(&mut vcpu.fd);
    let mut running = false;
    loop {
        let command = if running {
            match commands.try_recv() {
                Ok(command) => Some(command),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return,
            }
        } else {
            match commands.recv() {
                Ok(command) => Some(command),
                Err(_) => return,
            }
        };
        match command {
            Some(Command::Run) => {
                // Tells the guest that it stood still, so that it does not take the time for a hang. A guest
                // that does not use the clock has nothing to be told.
                let _ = vcpu.fd.kvmclock_ctrl();
                running = true;
            }
            Some(Command::Pause { done }) => {
                running = false;
                // Whoever asked may have given up.
                let _ = done.send(());
            }
            Some(Command::Save { moment, done }) => {
                let cpu = Cpu {
                    fd: &vcpu.fd,
                    scaled: vcpu.scaled,
                };
                let saved = state::save_cpu(cpu, &vcpu.cpuid, &vcpu.msrs, moment);
                let _ = done.send(saved.map(Box::new));
            }
            None => match exit::run_until_kicked(&mut vcpu, kick) {
                Next::Commands => {}
                Next::Ended(end) => {
                    vcpu.end.tell(end);
                    running = false;
                }
            },
        }
    }
}
