//! `sprited purge`: removes from this host whatever a data directory's server ever set on it.

use sprite_disk::Pool;
use sprite_net::Network;

use crate::cli::PurgeFlags;
use crate::data_dir::DataDir;
use crate::failure::Failure;

pub(crate) async fn purge(flags: PurgeFlags) -> Result<(), Failure> {
    if !flags.data_dir.exists() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::plain("only root can remove machines, networks and mounts").hint(format!(
                "sudo sprited purge --data-dir {}",
                flags.data_dir.display()
            )),
        );
    }
    let data = DataDir::existing(&flags.data_dir)?;
    let _lock = data.lock()?;
    let run_dir = flags.run_dir.join(data.instance.as_str());
    sprite_machine::purge(&data.instance, &run_dir)
        .await
        .map_err(|error| Failure::new("remove machines", &error))?;
    Network::purge(&data.instance)
        .await
        .map_err(|error| Failure::new("remove networks", &error))?;
    let path = data.path.clone();
    let unmounted = tokio::task::spawn_blocking(move || Pool::purge(&path)).await;
    let unmounted = unmounted.map_err(|error| Failure::new("unmount the pool", &error))?;
    unmounted.map_err(|error| Failure::new("unmount the pool", &error))?;
    match std::fs::remove_dir_all(&run_dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Failure::new(
                format!("remove {}", run_dir.display()),
                &error,
            ));
        }
    }
    eprintln!(
        "nothing of instance {} is left on this host but its data; remove that with: rm -r {}",
        data.instance,
        data.path.display()
    );
    Ok(())
}
