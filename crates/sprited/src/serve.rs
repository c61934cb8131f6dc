//! `sprited serve`: opens everything in its order, serves, and closes in the reverse order.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sprite_catalog::Catalog;
use sprite_disk::image::Recipe;
use sprite_disk::{ImageId, Pool, PoolOptions};
use sprite_host::{Host, HostOptions};
use sprite_net::Network;
use sprite_server::{Api, ServerConfig, Tls, UrlKey, UrlScheme};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::ServeFlags;
use crate::config::{Config, TlsFiles, UrlDomain};
use crate::data_dir::DataDir;
use crate::doctor::names;
use crate::drivers::{self, Driver};
use crate::failure::Failure;
use crate::listen::Given;
use crate::progress::Lines;
use crate::{disks, image};

/// What requests that are under way get when another server takes over.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(300);

pub(crate) async fn serve(flags: Box<ServeFlags>) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SPRITED_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    // Before any other process is started, which would have them too.
    let given = Given::take()?;
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
    let driver = Driver::open(kind, &data, &config, &pool, network.clone()).await?;
    let pool_disks = Arc::new(disks::PoolDisks { pool: pool.clone() });
    let host = Host::open(catalog.clone(), pool_disks, driver.machines(), options)
        .await
        .map_err(|error| Failure::new("recover", &error))?;
    let warnings = tokio::spawn(warn(network.clone(), config.url_domain.clone()));
    let served = run(&host, &config, data.url_key()?, given, &mut stop).await;
    warnings.abort();
    if let Ok(Ending::HandOver) = served {
        tracing::info!("handing over: machines run on, and wait for the next server");
        // As a crash would leave it, which the next start is made for.
        host.kill().await;
        catalog.close().await;
        return Ok(());
    }
    tracing::info!("stopping: no new requests, machines end in order");
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
    served.map(|_| ())
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With its machines.
    InOrder,
    /// Without them: another server takes them over.
    HandOver,
}

/// The signals that end what runs in the foreground.
pub(crate) struct Stop {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hand_over: tokio::signal::unix::Signal,
}

impl Stop {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    pub(crate) async fn wait(&mut self) -> Ending {
        tokio::select! {
            _ = self.term.recv() => Ending::InOrder,
            _ = self.interrupt.recv() => Ending::InOrder,
            _ = self.hand_over.recv() => Ending::HandOver,
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

/// Says what an operator would otherwise look for.
async fn warn(network: Network, domain: UrlDomain) {
    if let Some((found, remedy)) = names(&domain).await.warns() {
        tracing::warn!("programs on this host do not find sprites' URLs: {found}; {remedy}");
    }
    warn_of_firewalls(network).await;
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

async fn run(
    host: &Host,
    config: &Config,
    url_key: UrlKey,
    mut given: Given,
    stop: &mut Stop,
) -> Result<Ending, Failure> {
    let listeners = given.listen(&config.listen)?;
    let url_listeners = given.listen(&config.url_listen)?;
    let metrics_listeners = given.listen(&config.metrics_listen)?;
    given.all_used()?;
    let metrics = first_of(&metrics_listeners);
    let first =
        first_of(&listeners).ok_or_else(|| Failure::plain("there is no address to listen on"))?;
    let tls = config.tls.as_ref().map(open_tls).transpose()?;
    let spoken = match &tls {
        Some(_) => UrlScheme::Https,
        None => UrlScheme::Http,
    };
    let urls = first_of(&url_listeners).unwrap_or(first);
    let public_base = config.api_url.clone();
    let api = Api::new(
        host.clone(),
        ServerConfig {
            public_base: public_base.unwrap_or_else(|| format!("http://{first}")),
            sprite_urls: config.url_domain.urls(urls.port(), spoken),
            url_key,
            custom_domains: config.custom_domains,
            url_requests: ServerConfig::URL_REQUESTS,
        },
    );
    let (tell, told) = watch::channel(false);
    let stopped = || {
        let mut told = told.clone();
        async move {
            // An error means that the sender is gone, which is the end as well.
            let _ = told.wait_for(|stop| *stop).await;
        }
    };
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        serving.spawn(sprite_server::serve(listener, api.router(), stopped()));
    }
    for listener in url_listeners {
        let (router, stopped) = (api.url_router(), stopped());
        match tls.clone() {
            Some(tls) => serving.spawn(sprite_server::serve_tls(listener, tls, router, stopped)),
            None => serving.spawn(sprite_server::serve(listener, router, stopped)),
        };
    }
    for listener in metrics_listeners {
        let router = api.metrics_router();
        serving.spawn(sprite_server::serve(listener, router, stopped()));
    }
    if let Some(calls) = host.calls() {
        let stopped = stopped();
        serving.spawn(async move { api.serve_inside(calls, stopped).await });
    }
    if let Some(tls) = tls {
        let (hangup, stopped) = (hangup()?, stopped());
        serving.spawn(async move {
            tokio::select! {
                () = renew(tls, hangup) => {}
                () = stopped => {}
            }
        });
    }
    if let Some(metrics) = metrics {
        println!("metrics on http://{metrics}/metrics");
    }
    if !config.url_listen.is_empty() {
        println!("sprites' URLs on {spoken}://{urls}");
    }
    println!("listening on http://{first}");
    let ending = stop.wait().await;
    tell.send_replace(true);
    match ending {
        Ending::InOrder => drop(serving.join_all().await),
        // Whoever connects now waits for the next server, so not for long.
        Ending::HandOver => {
            let finished = tokio::time::timeout(HAND_OVER_WITHIN, serving.join_all()).await;
            tracing::debug!(in_time = finished.is_ok(), "requests that were under way");
        }
    }
    Ok(ending)
}

fn first_of(listeners: &[TcpListener]) -> Option<SocketAddr> {
    listeners.first()?.local_addr().ok()
}

fn open_tls(files: &TlsFiles) -> Result<Tls, Failure> {
    Tls::open(&files.certificate, &files.key)
        .map_err(|error| Failure::new("use the certificate of sprites' URLs", &error))
}

fn hangup() -> Result<tokio::signal::unix::Signal, Failure> {
    signal(SignalKind::hangup()).map_err(|error| Failure::new("listen for signals", &error))
}

/// Shows a renewed certificate whenever somebody says that there is one.
async fn renew(tls: Tls, mut hangup: tokio::signal::unix::Signal) {
    while hangup.recv().await.is_some() {
        match tls.renew() {
            Ok(()) => tracing::info!("the certificate of sprites' URLs was read again"),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the certificate stays as it was"
            ),
        }
    }
}
