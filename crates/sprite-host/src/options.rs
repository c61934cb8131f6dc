//! What an operator may set.

use std::time::Duration;

use crate::fault::Faults;

/// Settings of a [`Host`](crate::Host).
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// How long a sprite stays running without a hold; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a frozen machine is kept before it is ended and its sprite becomes cold.
    pub cold_after: Duration,
    /// How long a request waits for a sprite to wake.
    pub wake_within: Duration,
    /// How long a machine may take from its start until its environment stands.
    pub boot_within: Duration,
    /// How long an agent may take to end its processes and write its disk before its machine is ended hard.
    pub stop_within: Duration,
    /// How long an agent may take to write its disk before its machine falls asleep.
    pub sync_within: Duration,
    /// How often the counters of machines that run are recorded: what they counted since then is lost with the host.
    pub sample_every: Duration,
    /// CPUs of this host, for the default size of machines.
    pub host_cpus: u32,
    /// The base image of new sprites, as the pool spells its id.
    pub image: String,
    /// Name servers of every environment, as IP addresses.
    pub nameservers: Vec<String>,
    /// How many sprites an organisation may have.
    pub max_sprites: u64,
    /// How many machines are started at the same time; the others wait their turn.
    pub boots_at_once: usize,
    /// Where tests stop the host.
    pub faults: Faults,
}

impl HostOptions {
    /// The defaults on a host with that many CPUs.
    #[must_use]
    pub fn new(host_cpus: u32, image: impl Into<String>) -> Self {
        Self {
            idle_timeout: None,
            cold_after: Duration::from_secs(3600),
            // Clients give an upgrade 10 s (behaviour reference §1.4.4, rule 6): answer before that.
            wake_within: Duration::from_secs(8),
            boot_within: Duration::from_secs(30),
            stop_within: Duration::from_secs(10),
            // Longer than 4 GiB of dirty pages take on a slow disk.
            sync_within: Duration::from_secs(60),
            sample_every: Duration::from_secs(60),
            host_cpus,
            image: image.into(),
            // The resolver of the machines' own network.
            nameservers: vec!["10.0.0.2".to_owned()],
            max_sprites: 100_000,
            // Starting is half waiting for the disk and the kernel: more than CPUs, but not everything at once.
            boots_at_once: 4 * host_cpus.max(1) as usize,
            faults: Faults::default(),
        }
    }
}
