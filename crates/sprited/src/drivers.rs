//! Which driver makes machines on this host, and what it needs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sprite_disk::guest::{Guest, GuestOptions, GuestSource, GuestSystem};
use sprite_disk::{Goldens, Pool, Silent};
use sprite_machine::container::{ContainerDriver, ContainerOptions};
use sprite_machine::microvm::{
    self, FindGuest, GoldenPlace, GuestFiles, MicrovmDriver, MicrovmOptions,
};
use sprite_machine::{MachineDriver, MachineError, kvm};
use sprite_net::{Attachment, NetOptions, Network};
use sprite_types::DriverKind;

use crate::cli::DriverChoice;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::programs;
use crate::progress::Lines;

/// The driver's own deadline, before that of whoever waits for it, so that it can say why.
fn earlier(boot_within: Duration) -> Duration {
    boot_within.mul_f32(0.9)
}

/// The driver that follows from what the operator wants and from what the host can.
pub(crate) fn follows(choice: DriverChoice, kvm_usable: bool) -> DriverKind {
    match (choice, kvm_usable) {
        (DriverChoice::Microvm, _) | (DriverChoice::Auto, true) => DriverKind::Microvm,
        (DriverChoice::Container, _) | (DriverChoice::Auto, false) => DriverKind::Container,
    }
}

/// What the operator wants, on this host. Says which isolation that is.
pub(crate) fn choose(choice: DriverChoice) -> Result<DriverKind, Failure> {
    let kvm = kvm::probe();
    let kind = follows(choice, kvm.is_ok());
    match (kind, choice, kvm) {
        (DriverKind::Microvm, _, Err(unusable)) => {
            let remedy = unusable.remedy();
            return Err(Failure::new("use hardware virtualization", &unusable).hint(format!(
                "{remedy}; or use --driver container, whose isolation is weaker, see THREAT-MODEL.md"
            )));
        }
        (DriverKind::Container, DriverChoice::Auto, Err(unusable)) => tracing::warn!(
            "no hardware virtualization: {}; {}",
            Chain(&unusable),
            unusable.remedy()
        ),
        (DriverKind::Microvm | DriverKind::Container, _, _) => {}
    }
    match kind {
        DriverKind::Microvm => tracing::info!(
            "isolation: hardware (driver microvm): every machine has a kernel of its own"
        ),
        DriverKind::Container => tracing::warn!(
            "isolation: kernel (driver container): machines share this host's kernel, \
            which is weaker than hardware virtualization"
        ),
    }
    Ok(kind)
}

/// An error with all that caused it, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut causes = std::iter::successors(self.0.source(), |error| error.source());
        causes.try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// The network as the driver's machines hold on to it.
pub(crate) fn net_options(kind: DriverKind, data: &DataDir) -> NetOptions {
    NetOptions {
        attachment: match kind {
            DriverKind::Microvm => Attachment::Tap,
            DriverKind::Container => Attachment::Interface,
        },
        ..NetOptions::new(data.instance.clone())
    }
}

/// The driver in force.
pub(crate) enum Driver {
    Microvm(Arc<MicrovmDriver>),
    Container(Arc<ContainerDriver>),
}

impl Driver {
    /// Opens a driver.
    pub(crate) async fn open(
        kind: DriverKind,
        data: &DataDir,
        config: &Config,
        pool: &Pool,
        network: Network,
    ) -> Result<Self, Failure> {
        let run_dir = config.run_dir.join(data.instance.as_str());
        let ranges_dir = config.run_dir.join("ranges");
        let agent = install(&run_dir, &programs::AGENT)?;
        let opened = match kind {
            DriverKind::Container => {
                let options = ContainerOptions {
                    instance: data.instance.clone(),
                    run_dir,
                    ranges_dir,
                    agent,
                };
                ContainerDriver::new(options, network).map(|driver| Self::Container(driver.into()))
            }
            DriverKind::Microvm => {
                let monitor = match &config.vmm {
                    Some(given) => given_monitor(given).await?,
                    None => install(&run_dir, &programs::MONITOR)?,
                };
                let (guest, earlier_guests) = open_guest(data, config).await?;
                let goldens = pool.goldens(&config.image_cache);
                let goldens = goldens
                    .map_err(|error| Failure::new("make a place for golden snapshots", &error))?;
                let options = MicrovmOptions {
                    instance: data.instance.clone(),
                    run_dir,
                    ranges_dir,
                    agent,
                    monitor,
                    guest,
                    earlier_guests,
                    goldens: Arc::new(PoolGoldens(goldens)),
                    boot_within: earlier(config.boot_within),
                };
                MicrovmDriver::new(options, network).map(|driver| Self::Microvm(driver.into()))
            }
        };
        opened.map_err(|error| Failure::new(format!("prepare the {kind} driver"), &error))
    }

    /// For the host of sprites.
    pub(crate) fn machines(&self) -> Arc<dyn MachineDriver> {
        match self {
            Self::Microvm(driver) => driver.clone(),
            Self::Container(driver) => driver.clone(),
        }
    }

    /// Removes what the driver itself has on the host, if no machine is left.
    pub(crate) fn close(&self) -> Result<(), MachineError> {
        match self {
            Self::Microvm(driver) => driver.close(),
            Self::Container(driver) => driver.close(),
        }
    }
}

/// A monitor that the operator gave, if it can be one.
async fn given_monitor(given: &Path) -> Result<PathBuf, Failure> {
    match microvm::examine(given).await {
        Ok(monitor) => {
            tracing::info!(name = monitor.name, version = monitor.version, "monitor");
            Ok(given.to_owned())
        }
        Err(unfit) => Err(
            Failure::new(format!("use the monitor {}", given.display()), &unfit)
                .hint(unfit.remedy()),
        ),
    }
}

/// The golden snapshots of a pool as the driver uses them.
struct PoolGoldens(Goldens);

impl microvm::Goldens for PoolGoldens {
    fn find(&self, name: &str) -> io::Result<Option<PathBuf>> {
        self.0.find(name)
    }

    fn begin(&self, name: &str) -> io::Result<Option<GoldenPlace>> {
        let begun = self.0.begin(name)?;
        Ok(begun.map(|(directory, lock)| GoldenPlace {
            directory,
            lock: lock.into(),
        }))
    }

    fn finish(&self, name: &str, place: GoldenPlace) -> io::Result<()> {
        let finished = self.0.finish(name);
        drop(place);
        finished
    }

    fn forget(&self, name: &str) -> io::Result<()> {
        self.0.forget(name)
    }
}

fn install(run_dir: &Path, program: &programs::Program) -> Result<PathBuf, Failure> {
    program.install(run_dir).map_err(|error| {
        Failure::new(
            format!("lay down {} in {}", program.name, run_dir.display()),
            &error,
        )
    })
}

/// What machines boot, made if the data directory has none yet, and a way to what they booted earlier.
async fn open_guest(data: &DataDir, config: &Config) -> Result<(GuestFiles, FindGuest), Failure> {
    let options = GuestOptions {
        directory: data.guest(),
        cache_dir: config.image_cache.clone(),
    };
    let earlier = options.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let progress = Lines::default();
        Guest::open(
            &options,
            &GuestSource::Recorded,
            programs::AGENT.bytes,
            &progress,
        )
    });
    let guest = opened
        .await
        .map_err(|error| Failure::new("prepare the guest system", &error))?
        .map_err(|error| {
            Failure::new("prepare the guest system", &error)
                .hint("or use --driver container, whose isolation is weaker, see THREAT-MODEL.md")
        })?;
    tracing::info!(id = %guest.id, kernel = guest.version, "guest system");
    let find = move |id: &str| {
        let source = GuestSource::Earlier(id.parse().ok()?);
        let found = Guest::open(&earlier, &source, programs::AGENT.bytes, &Silent);
        match found {
            Ok(guest) => Some(files(guest)),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(id, error, "an earlier guest system is not there");
                None
            }
        }
    };
    Ok((files(guest), Arc::new(find)))
}

fn files(guest: GuestSystem) -> GuestFiles {
    let GuestSystem {
        id,
        version: _,
        kernel,
        initramfs,
        modules,
    } = guest;
    GuestFiles {
        id: id.to_string(),
        kernel,
        initramfs,
        modules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_follows_from_the_flag_and_the_host() {
        for (choice, usable, driver) in [
            (DriverChoice::Auto, true, DriverKind::Microvm),
            (DriverChoice::Auto, false, DriverKind::Container),
            (DriverChoice::Container, true, DriverKind::Container),
            (DriverChoice::Microvm, false, DriverKind::Microvm),
        ] {
            assert_eq!(follows(choice, usable), driver);
        }
    }
}
