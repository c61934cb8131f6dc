//! `sprited guest`: the system that virtual machines boot.

use sprite_disk::guest::{Guest, GuestOptions};

use crate::cli::GuestUpdateFlags;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::progress::Lines;

/// Takes the distribution's newest kernel, and prints what is recorded now.
pub(crate) fn update(flags: &GuestUpdateFlags) -> Result<(), Failure> {
    let data = DataDir::open(&flags.data_dir)?;
    let options = GuestOptions {
        directory: data.guest(),
        cache_dir: flags.cache.image_cache.clone(),
    };
    let guest = Guest::update(&options, &Lines::default())
        .map_err(|error| Failure::new("take the newest kernel", &error))?;
    println!("{}  Linux {}", guest.id, guest.version);
    Ok(())
}
