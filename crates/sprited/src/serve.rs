//! `sprited serve`: opens everything in its order, serves, and closes in the reverse order.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;

use sprite_catalog::Catalog;
use sprite_disk::image::Recipe;
use sprite_disk::{ImageId, Pool, PoolOptions};
use sprite_host::{Host, HostOptions};
use sprite_net::Network;
use sprite_server::{Api, ServerConfig};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::ServeFlags;
use crate::config::{Config, Listen};
use crate::data_dir::DataDir;
use crate::drivers::{self, Driver};
use crate::failure::Failure;
use crate::progress::Lines;
use crate::{disks, image};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

pub(crate) async fn serve(flags: Box<ServeFlags>) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SPRITED_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let config = Config::load(*flags)?;
    let recipe = image::recipe(&config.image)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::plain("only root can make machines").hint("type: sudo sprited serve"));
    }
    let kind = drivers::choose(config.driver)?;
    raise_open_files();
    // Whoever asks us to stop while we start is heard when we have.
    let mut stop = Stop::listen().map_err(|error| Failure::new("listen for signals", &error))?;
    let data = DataDir::open(&config.data_dir)?;
    let _lock = data.lock()?;
    let (pool, image) = open_pool(&data, &config, recipe).await?;
    let network = Network::open(drivers::net_options(kind, &data))
        .await
        .map_err(|error| Failure::new("set up the network", &error))?;
    let catalog = Catalog::open(&data.catalog())
        .await
        .map_err(|error| Failure::new("open the catalog", &error))?;
    let cpus =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let options = HostOptions {
        idle_timeout: config.idle_timeout,
        cold_after: config.cold_after,
        boot_within: config.boot_within,
        ..HostOptions::new(cpus, image.as_str())
    };
    let driver = Driver::open(kind, &data, &config, network.clone()).await?;
    let pool_disks = Arc::new(disks::PoolDisks { pool: pool.clone() });
    let host = Host::open(catalog.clone(), pool_disks, driver.machines(), options)
        .await
        .map_err(|error| Failure::new("recover", &error))?;
    let warnings = tokio::spawn(warn_of_firewalls(network.clone()));
    let served = run(&host, &config, &mut stop).await;
    tracing::info!("stopping: no new requests, machines end in order");
    warnings.abort();
    host.close().await;
    drop(host);
    catalog.close().await;
    if let Err(error) = driver.close() {
        tracing::warn!(error = &error as &dyn std::error::Error, "close the driver");
    }
    if let Err(error) = network.close().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "close the network"
        );
    }
    let closed = tokio::task::spawn_blocking(move || pool.close()).await;
    if let Ok(Err(error)) = closed {
        tracing::warn!(error = &error as &dyn std::error::Error, "close the pool");
    }
    served
}

/// The signals that end what runs in the foreground.
pub(crate) struct Stop {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Connections, streams and name servers of many machines take more descriptors than shells allow by default.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays low");
    }
}

async fn open_pool(
    data: &DataDir,
    config: &Config,
    recipe: Recipe,
) -> Result<(Pool, ImageId), Failure> {
    let options = PoolOptions::new(&data.path);
    let cache = config.image_cache.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let progress = Lines::default();
        let pool = Pool::open(&options, &progress)
            .map_err(|error| Failure::new("open the pool", &error))?;
        let id = recipe.id();
        if !pool.has_image(&id) {
            eprintln!(
                "preparing base image {} (once; it is kept in {})",
                recipe.describe(),
                cache.display()
            );
            let built = image::make(&recipe, &cache, &progress)?;
            pool.import_image(&built.id, &built.path, &progress)
                .map_err(|error| Failure::new("copy the base image into the pool", &error))?;
        }
        Ok((pool, id))
    });
    opened
        .await
        .map_err(|error| Failure::new("open the pool", &error))?
}

async fn warn_of_firewalls(network: Network) {
    match network.diagnose().await {
        Ok(findings) => {
            for finding in findings {
                tracing::warn!(
                    "sprites have no network: {}; {}",
                    finding.problem,
                    finding.remedy
                );
            }
        }
        Err(error) => tracing::debug!(
            error = &error as &dyn std::error::Error,
            "look for firewalls"
        ),
    }
}

async fn run(host: &Host, config: &Config, stop: &mut Stop) -> Result<(), Failure> {
    let listeners = listen(&config.listen)?;
    let first = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok());
    let Some(first) = first else {
        return Err(Failure::plain("there is no address to listen on"));
    };
    let server = ServerConfig {
        public_base: format!("http://{first}"),
        sprite_urls: config.url_domain.urls(first.port()),
    };
    let api = Api::new(host.clone(), server);
    let router = api.router();
    let (tell, told) = watch::channel(false);
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        let mut told = told.clone();
        let stopped = async move {
            // An error means that the sender is gone, which is the end as well.
            let _ = told.wait_for(|stop| *stop).await;
        };
        serving.spawn(sprite_server::serve(listener, router.clone(), stopped));
    }
    if let Some(calls) = host.calls() {
        let mut told = told.clone();
        serving.spawn(async move {
            let stopped = async {
                // An error means that the sender is gone, which is the end as well.
                let _ = told.wait_for(|stop| *stop).await;
            };
            api.serve_inside(calls, stopped).await;
        });
    }
    println!("listening on http://{first}");
    stop.wait().await;
    tell.send_replace(true);
    serving.join_all().await;
    Ok(())
}

fn listen(addresses: &[Listen]) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::new();
    for listen in addresses {
        match bind(listen.address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if !listen.required => {
                tracing::info!(%error, "not listening on {}", listen.address);
            }
            Err(error) => {
                return Err(
                    Failure::new(format!("listen on {}", listen.address), &error).hint(
                        "choose another address with --listen ADDR:PORT; port 0 picks a free one",
                    ),
                );
            }
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
