//! The server's settings: flag over environment over file over default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sprite_server::{SpriteUrls, UrlScheme};

use crate::cli::{DriverChoice, ServeFlags};
use crate::failure::Failure;

const DEFAULT_FILE: &str = "/etc/sprited/sprited.toml";

/// What a file may set; names are those of the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<Vec<SocketAddr>>,
    plain_http: Option<bool>,
    driver: Option<DriverChoice>,
    vmm: Option<PathBuf>,
    url_domain: Option<String>,
    idle_timeout: Option<String>,
    cold_after: Option<String>,
    boot_within: Option<String>,
    image_cache: Option<PathBuf>,
    image: Option<String>,
    run_dir: Option<PathBuf>,
}

/// Settings in force.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: Vec<Listen>,
    pub(crate) driver: DriverChoice,
    /// A monitor of virtual machines other than the one that this program carries.
    pub(crate) vmm: Option<PathBuf>,
    pub(crate) url_domain: UrlDomain,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) cold_after: Duration,
    pub(crate) boot_within: Duration,
    pub(crate) image_cache: PathBuf,
    pub(crate) image: String,
    pub(crate) run_dir: PathBuf,
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    /// Whether the server cannot do without it: all but the second default, on a host without IPv6.
    pub(crate) required: bool,
}

/// Where sprites have their URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UrlDomain {
    scheme: Option<UrlScheme>,
    domain: String,
    port: Option<u16>,
}

impl UrlDomain {
    /// As given: a bare domain is served by the API's own listener, a URL by a proxy before it.
    fn parse(text: &str) -> Result<Self, Failure> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(UrlScheme::Http), rest),
            Some(("https", rest)) => (Some(UrlScheme::Https), rest),
            Some(_) => {
                return Err(invalid(
                    "url-domain",
                    text,
                    "a domain, or http:// or https:// and a domain",
                ));
            }
            None => (None, text),
        };
        let rest = rest.trim_end_matches('/');
        let (domain, port) = match rest.split_once(':') {
            Some((domain, port)) => {
                let port = port
                    .parse()
                    .map_err(|_| invalid("url-domain", text, "a port from 1 to 65535"))?;
                (domain, Some(port))
            }
            None => (rest, None),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !domain.split('.').all(label) {
            return Err(invalid(
                "url-domain",
                text,
                "a domain such as sprites.localhost",
            ));
        }
        Ok(Self {
            scheme,
            domain: domain.to_ascii_lowercase(),
            port,
        })
    }

    /// The URLs of sprites of a server that listens on this port.
    pub(crate) fn urls(&self, listening: u16) -> SpriteUrls {
        let port = match self.scheme {
            Some(_) => self.port,
            None => self.port.or(Some(listening)),
        };
        SpriteUrls {
            scheme: self.scheme.unwrap_or(UrlScheme::Http),
            domain: self.domain.clone(),
            port,
        }
    }
}

fn invalid(name: &str, value: &str, expected: &str) -> Failure {
    Failure::plain(format!("{name} is {value:?}")).hint(format!("it must be {expected}"))
}

impl Config {
    /// Lays flags (which hold the environment), file and defaults together.
    pub(crate) fn load(flags: ServeFlags) -> Result<Self, Failure> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let plain_http = flags.plain_http || file.plain_http.unwrap_or(false);
        let given = if flags.listen.is_empty() {
            file.listen.unwrap_or_default()
        } else {
            flags.listen
        };
        let domain = flags.url_domain.or(file.url_domain);
        let idle = flags.idle_timeout.or(file.idle_timeout);
        let cold = flags.cold_after.or(file.cold_after);
        let boot = flags.boot_within.or(file.boot_within);
        let or = |flag: Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            flag.or(file).unwrap_or_else(|| default.into())
        };
        Ok(Self {
            data_dir: or(flags.data_dir, file.data_dir, "/var/lib/sprited"),
            listen: listen(&given, plain_http)?,
            driver: flags.driver.or(file.driver).unwrap_or(DriverChoice::Auto),
            vmm: flags.vmm.or(file.vmm),
            url_domain: UrlDomain::parse(domain.as_deref().unwrap_or("sprites.localhost"))?,
            idle_timeout: match idle.as_deref() {
                Some("never") => None,
                Some(text) => Some(duration("idle-timeout", text)?),
                None => Some(Duration::from_secs(30)),
            },
            cold_after: duration("cold-after", cold.as_deref().unwrap_or("10m"))?,
            boot_within: duration("boot-within", boot.as_deref().unwrap_or("30s"))?,
            image_cache: or(flags.image_cache, file.image_cache, "/var/cache/sprited"),
            image: flags
                .image
                .or(file.image)
                .unwrap_or_else(|| "default".to_owned()),
            run_dir: or(flags.run_dir, file.run_dir, "/run/sprited"),
        })
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("read {}", path.display()), &error))?;
    toml::from_str(&text).map_err(|error| {
        Failure::new(format!("read {}", path.display()), &error)
            .hint("its keys are the names of the flags of `sprited serve --help`")
    })
}

fn duration(name: &str, text: &str) -> Result<Duration, Failure> {
    let parsed = humantime::parse_duration(text);
    parsed
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| invalid(name, text, "a time such as 30s, 10m or 2h"))
}

fn listen(given: &[SocketAddr], plain_http: bool) -> Result<Vec<Listen>, Failure> {
    if given.is_empty() {
        return Ok(vec![
            Listen {
                address: ([127, 0, 0, 1], 7774).into(),
                required: true,
            },
            Listen {
                address: ([0, 0, 0, 0, 0, 0, 0, 1], 7774).into(),
                required: false,
            },
        ]);
    }
    if let Some(open) = given.iter().find(|address| !address.ip().is_loopback())
        && !plain_http
    {
        return Err(Failure::plain(format!("{open} can be reached from outside, and there is no TLS"))
            .hint("put a proxy that speaks TLS before a loopback address, or accept that tokens pass in the clear with --plain-http"));
    }
    Ok(given
        .iter()
        .map(|&address| Listen {
            address,
            required: true,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> ServeFlags {
        ServeFlags {
            config: Some("/dev/null".into()),
            data_dir: None,
            listen: Vec::new(),
            plain_http: false,
            driver: None,
            vmm: None,
            url_domain: None,
            idle_timeout: None,
            cold_after: None,
            boot_within: None,
            image_cache: None,
            image: None,
            run_dir: None,
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_default() {
        let dir = std::env::temp_dir().join(format!("sprited-config-{}", std::process::id()));
        std::fs::write(&dir, "data-dir = '/from/file'\nidle-timeout = 'never'\n").expect("writes");
        let config = Some(dir.clone());
        let loaded = Config::load(ServeFlags {
            config: config.clone(),
            ..flags()
        })
        .expect("loads");
        assert_eq!(
            (loaded.data_dir.as_path(), loaded.idle_timeout),
            (Path::new("/from/file"), None)
        );
        let data_dir = Some("/from/flag".into());
        let idle_timeout = Some("5s".to_owned());
        let loaded = Config::load(ServeFlags {
            config,
            data_dir,
            idle_timeout,
            ..flags()
        })
        .expect("loads");
        assert_eq!(loaded.data_dir, Path::new("/from/flag"));
        assert_eq!(loaded.idle_timeout, Some(Duration::from_secs(5)));
        assert_eq!(
            Config::load(flags()).expect("loads").data_dir,
            Path::new("/var/lib/sprited")
        );
        std::fs::remove_file(dir).expect("removes");
    }

    #[test]
    fn without_anything_the_places_are_those_of_a_system_service() {
        let config = Config::load(flags()).expect("loads");
        let listen: Vec<_> = config
            .listen
            .iter()
            .map(|l| l.address.to_string())
            .collect();
        assert_eq!(listen, ["127.0.0.1:7774", "[::1]:7774"]);
        for (path, expected) in [
            (config.data_dir, "/var/lib/sprited"),
            (config.run_dir, "/run/sprited"),
            (config.image_cache, "/var/cache/sprited"),
            (DEFAULT_FILE.into(), "/etc/sprited/sprited.toml"),
        ] {
            assert_eq!(path, Path::new(expected));
        }
        let urls = config.url_domain.urls(7774);
        assert_eq!(urls.domain, "sprites.localhost");
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_refused() {
        let dir = std::env::temp_dir().join(format!("sprited-bad-{}", std::process::id()));
        std::fs::write(&dir, "data_dir = '/typo'\n").expect("writes");
        assert!(
            Config::load(ServeFlags {
                config: Some(dir.clone()),
                ..flags()
            })
            .is_err()
        );
        std::fs::remove_file(dir).expect("removes");
        for bad in ["0s", "soon", "-3s"] {
            assert!(
                Config::load(ServeFlags {
                    idle_timeout: Some(bad.to_owned()),
                    ..flags()
                })
                .is_err()
            );
        }
        for bad in ["ftp://x", "a b", "", "https://", "x:99999"] {
            assert!(UrlDomain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_address_needs_a_word() {
        let open = vec!["0.0.0.0:80".parse().expect("an address")];
        assert!(
            Config::load(ServeFlags {
                listen: open.clone(),
                ..flags()
            })
            .is_err()
        );
        assert!(
            Config::load(ServeFlags {
                listen: open,
                plain_http: true,
                ..flags()
            })
            .is_ok()
        );
    }

    #[test]
    fn urls_are_those_of_the_listener_or_of_the_proxy() {
        let local = UrlDomain::parse("sprites.localhost")
            .expect("a domain")
            .urls(7774);
        assert_eq!((local.scheme, local.port), (UrlScheme::Http, Some(7774)));
        let proxy = UrlDomain::parse("https://s.example.com")
            .expect("a URL")
            .urls(7774);
        assert_eq!((proxy.scheme, proxy.port), (UrlScheme::Https, None));
    }
}
