//! `/init`: from the first program of a guest's kernel to its agent.
//!
//! | phase | does |
//! |---|---|
//! | `modules` | loads what is needed to find the disks, the network and the host |
//! | `file systems` | makes the agent's own root, and leaves the archive that the kernel started from |
//! | `disks` | waits for the disks, mounts the one with all modules |
//! | `network` | the address that the kernel's command line tells |
//! | `groups` | the agent and the environment apart, each with its memory |
//! | `kernel` | what a distribution's own start would set |
//!
//! Then this process, the guest's first one for as long as it lives, becomes the agent. Until the agent builds the
//! environment nothing here is any sprite's: the memory of such a guest is what new sprites begin with. What fails is told on the
//! console with its phase, and the machine ends: there is nothing that a person could mend inside.

mod cgroups;
mod devices;
mod network;
mod roots;
mod settings;

pub(crate) use cgroups::{ENVIRONMENT_GROUP, SESSIONS_GROUP, enable_all, limit_environment};
pub(crate) use roots::mount_disk;

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use sprite_agent_api::guest::GuestNetwork;

use crate::step::{Step, StepError};
use crate::walls::{self, Walls};
use crate::{end, launch, log, modules};

/// How long the kernel may take to find a device. They are there at once, or never.
const DEVICE_WITHIN: Duration = Duration::from_secs(10);

/// Builds the guest and becomes its agent.
pub(crate) fn main() -> ! {
    let mut phases = Phases::start();
    let failure = match build(&mut phases) {
        Ok(()) => {
            log::say(&phases.told);
            StepError {
                step: "execute the agent".to_owned(),
                source: walls::execute_run(Walls::Guest),
            }
        }
        Err(failure) => failure,
    };
    log::say(format_args!("{}; then failed: {failure}", phases.told));
    end::guest()
}

fn build(phases: &mut Phases) -> Result<(), StepError> {
    // Before the first device can appear.
    let devices = devices::Devices::listen()?;
    modules::load_early()?;
    phases.end("modules");
    roots::leave_initramfs()?;
    phases.end("file systems");
    roots::find_disks(&devices)?;
    phases.end("disks");
    let line = fs::read_to_string("/proc/cmdline").step("read the kernel's command line")?;
    let network = GuestNetwork::of_command_line(&line)
        .map_err(std::io::Error::other)
        .step("find the network")?;
    network::bring_up(network, &devices)?;
    phases.end("network");
    cgroups::divide()?;
    phases.end("groups");
    devices::make_static_nodes()?;
    settings::apply();
    launch::raise_open_files();
    phases.end("kernel");
    Ok(())
}

/// What was done, and how long it took.
struct Phases {
    since: Instant,
    told: String,
}

impl Phases {
    fn start() -> Self {
        let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let millis = uptime.tv_sec * 1000 + uptime.tv_nsec / 1_000_000;
        Self {
            since: Instant::now(),
            told: format!("start: kernel {millis} ms"),
        }
    }

    fn end(&mut self, name: &str) {
        let now = Instant::now();
        let millis = now.duration_since(self.since).as_secs_f64() * 1000.0;
        write!(self.told, ", {name} {millis:.1} ms").expect("a string takes all");
        self.since = now;
    }
}
