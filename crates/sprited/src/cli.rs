//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sprite_types::{OrgSlug, TokenId};

/// The self-hosted server of sprites: small persistent computers that run code nobody trusts.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "First steps:
  sudo sprited serve                                  make the base image, then listen on 127.0.0.1:7774
  sudo sprited token create --org personal | sprite auth setup --url http://127.0.0.1:7774 --token -
  sprite create my-first"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server in the foreground; logs go to stderr.
    Serve(Box<ServeFlags>),
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make and list base images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Take another kernel for virtual machines.
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Say what works on this host with these settings, and what to do about what does not. The exit status is 1
    /// when something keeps sprites from running.
    Doctor(Box<DoctorFlags>),
    /// Remove everything that a data directory's server ever set on this host, machines included. The data
    /// stays until you remove the directory.
    Purge(PurgeFlags),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token of an organisation, which is made too if it is new. Prints the token alone.
    Create(TokenFlags),
    /// List the tokens that are not revoked: id, organisation, when it was made, what for.
    List(TokenListFlags),
    /// Make a token useless, from the next request on. Commands that run go on.
    Revoke(TokenRevokeFlags),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make a base image, unless the cache has it.
    Build(ImageBuildFlags),
    /// List the images of the cache.
    List(ImageCacheFlags),
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuestCommand {
    /// Take the newest kernel of this host's distribution. Machines boot it after the server's next start; until
    /// then, and without this command for ever, they boot the one that the data directory has recorded.
    Update(GuestUpdateFlags),
}

/// Every flag can also be set in the environment and in a TOML file (`data-dir = "…"`); a flag wins over the
/// environment, that over the file.
#[derive(Debug, Args)]
pub(crate) struct ServeFlags {
    /// A TOML file with any of these settings [default: /etc/sprited/sprited.toml if it is there]
    #[arg(long, env = "SPRITED_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything durable lives [default: /var/lib/sprited]
    #[arg(long, env = "SPRITED_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where to listen; may be given more than once, port 0 picks a free one [default: 127.0.0.1:7774 and [::1]:7774]
    #[arg(
        long,
        env = "SPRITED_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<SocketAddr>,
    /// Serve an address that others can reach although there is no TLS: tokens then pass in the clear
    #[arg(long, env = "SPRITED_PLAIN_HTTP")]
    pub(crate) plain_http: bool,
    /// What makes machines [default: auto]
    #[arg(long, env = "SPRITED_DRIVER", value_enum)]
    pub(crate) driver: Option<DriverChoice>,
    /// The monitor of virtual machines (microvm driver): firecracker 1.12 or newer, or another sprite-vmm
    /// [default: the sprite-vmm that this program carries]
    #[arg(long, env = "SPRITED_VMM", value_name = "PATH")]
    pub(crate) vmm: Option<PathBuf>,
    /// The domain under which sprites have their URLs: sprites.localhost, or https://sprites.example.com behind
    /// a proxy that speaks TLS [default: sprites.localhost]
    #[arg(long, env = "SPRITED_URL_DOMAIN", value_name = "DOMAIN")]
    pub(crate) url_domain: Option<String>,
    /// A listener of its own for sprites' URLs, which serves nothing of the API; may be given more than once
    /// [default: the URLs are served where the API is]
    #[arg(
        long,
        env = "SPRITED_URL_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub(crate) url_listen: Vec<SocketAddr>,
    /// The certificates of --url-listen, which then speaks HTTPS and HTTP/2: a chain in PEM, for all names below the
    /// URL domain. Read again on SIGHUP
    #[arg(long, env = "SPRITED_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, in PEM
    #[arg(long, env = "SPRITED_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where browsers and clients reach the API, if a proxy stands before it: browsers are sent there to log in to
    /// private URLs [default: http:// and the first address of --listen]
    #[arg(long, env = "SPRITED_API_URL", value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// Whether people's own domains can be mapped to sprites. Whoever has a token may then map any that is free, so
    /// every name by which the API is reached must be that of --api-url [default: off]
    #[arg(
        long,
        env = "SPRITED_CUSTOM_DOMAINS",
        value_name = "ON|OFF",
        value_enum
    )]
    pub(crate) custom_domains: Option<Switch>,
    /// Where monitoring reads /metrics, without a token; may be given more than once [default: nowhere]
    #[arg(
        long,
        env = "SPRITED_METRICS_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub(crate) metrics_listen: Vec<SocketAddr>,
    /// How long a sprite that nobody uses keeps running: 30s, 5m, never [default: 30s]
    #[arg(long, env = "SPRITED_IDLE_TIMEOUT", value_name = "TIME")]
    pub(crate) idle_timeout: Option<String>,
    /// How long a sprite that fell asleep keeps its memory (container driver) [default: 10m]
    #[arg(long, env = "SPRITED_COLD_AFTER", value_name = "TIME")]
    pub(crate) cold_after: Option<String>,
    /// How long a machine may take until its agent answers, on a slow host [default: 30s]
    #[arg(long, env = "SPRITED_BOOT_WITHIN", value_name = "TIME")]
    pub(crate) boot_within: Option<String>,
    /// Where finished base images are shared between servers [default: /var/cache/sprited]
    #[arg(long, env = "SPRITED_IMAGE_CACHE", value_name = "DIR")]
    pub(crate) image_cache: Option<PathBuf>,
    /// The base image of new sprites: default, minimal, or tar:PATH [default: default]
    #[arg(long, env = "SPRITED_IMAGE", value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Where sockets and records of running machines live [default: /run/sprited]
    #[arg(long, env = "SPRITED_RUN_DIR", value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
}

/// The settings of the server that is meant.
#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DriverChoice {
    /// The strongest that works on this host.
    Auto,
    /// Hardware virtual machines.
    Microvm,
    /// Namespaces, cgroups and seccomp on this host's kernel: weaker.
    Container,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct TokenFlags {
    /// The server's data directory; the server may be running
    #[arg(
        long,
        env = "SPRITED_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/sprited"
    )]
    pub(crate) data_dir: PathBuf,
    /// The organisation: lowercase letters, digits and '-'
    #[arg(long, value_name = "NAME")]
    pub(crate) org: OrgSlug,
    /// What the token is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "made by sprited token create"
    )]
    pub(crate) description: String,
}

#[derive(Debug, Args)]
pub(crate) struct TokenListFlags {
    /// The server's data directory; the server may be running
    #[arg(
        long,
        env = "SPRITED_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/sprited"
    )]
    pub(crate) data_dir: PathBuf,
    /// Only those of this organisation
    #[arg(long, value_name = "NAME")]
    pub(crate) org: Option<OrgSlug>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevokeFlags {
    /// The server's data directory; the server may be running
    #[arg(
        long,
        env = "SPRITED_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/sprited"
    )]
    pub(crate) data_dir: PathBuf,
    /// The id as `sprited token list` shows it: the third part of the token
    #[arg(value_name = "TOKEN-ID")]
    pub(crate) id: TokenId,
}

#[derive(Debug, Args)]
pub(crate) struct ImageCacheFlags {
    /// The cache
    #[arg(
        long,
        env = "SPRITED_IMAGE_CACHE",
        value_name = "DIR",
        default_value = "/var/cache/sprited"
    )]
    pub(crate) image_cache: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuildFlags {
    #[command(flatten)]
    pub(crate) cache: ImageCacheFlags,
    /// What to make it of: default, minimal, or tar:PATH, any root file system in a tarball
    #[arg(long, value_name = "SOURCE", default_value = "default")]
    pub(crate) from: String,
}

#[derive(Debug, Args)]
pub(crate) struct GuestUpdateFlags {
    #[command(flatten)]
    pub(crate) cache: ImageCacheFlags,
    /// The server's data directory; the server may be running
    #[arg(
        long,
        env = "SPRITED_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/sprited"
    )]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeFlags {
    /// The data directory whose traces are removed; no server may use it
    #[arg(long, env = "SPRITED_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where its server kept sockets and records
    #[arg(
        long,
        env = "SPRITED_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/sprited"
    )]
    pub(crate) run_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
