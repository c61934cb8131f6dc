//! The server's settings: flag over environment over file over default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sprite_server::{CustomDomains, Front, SpriteUrls, UrlScheme};

use crate::cli::{DriverChoice, ServeFlags, Switch};
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
    url_listen: Option<Vec<SocketAddr>>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    api_url: Option<String>,
    custom_domains: Option<Switch>,
    metrics_listen: Option<Vec<SocketAddr>>,
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
    /// Listeners of sprites' URLs alone.
    pub(crate) url_listen: Vec<Listen>,
    pub(crate) tls: Option<TlsFiles>,
    /// Where the API is reached, without a slash at the end.
    pub(crate) api_url: Option<String>,
    /// Whether people's own domains lead to sprites.
    pub(crate) custom_domains: CustomDomains,
    /// Listeners of `/metrics` alone.
    pub(crate) metrics_listen: Vec<Listen>,
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

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
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

    /// The domain itself.
    pub(crate) fn name(&self) -> &str {
        &self.domain
    }

    /// Whether a host is the domain, or below it.
    fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let below = host.strip_suffix(&self.domain);
        below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    }

    /// The URLs of sprites of a server that listens on this port, and how.
    pub(crate) fn urls(&self, listening: u16, spoken: UrlScheme) -> SpriteUrls {
        let port = match self.scheme {
            Some(_) => self.port,
            None => self.port.or(Some(listening)),
        };
        SpriteUrls {
            scheme: self.scheme.unwrap_or(spoken),
            domain: self.domain.clone(),
            port,
            front: match self.scheme {
                Some(_) => Front::Proxy,
                None => Front::Direct,
            },
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
        let url_domain = UrlDomain::parse(domain.as_deref().unwrap_or("sprites.localhost"))?;
        let api_url = flags.api_url.or(file.api_url);
        let tls = tls(
            flags.tls_cert.or(file.tls_cert),
            flags.tls_key.or(file.tls_key),
        )?;
        let url_given = if flags.url_listen.is_empty() {
            file.url_listen.unwrap_or_default()
        } else {
            flags.url_listen
        };
        if tls.is_some() && url_given.is_empty() {
            return Err(
                Failure::plain("there is a certificate and no listener that shows it")
                    .hint("add --url-listen ADDR:PORT, where sprites' URLs are served over TLS"),
            );
        }
        let custom_domains = custom_domains(
            flags.custom_domains.or(file.custom_domains),
            api_url.as_deref(),
        )?;
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
            api_url: api_url
                .map(|text| checked_api_url(&text, &url_domain))
                .transpose()?,
            custom_domains,
            url_listen: url_listeners(&url_given, plain_http || tls.is_some())?,
            tls,
            url_domain,
            metrics_listen: required(flags.metrics_listen, file.metrics_listen),
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

fn tls(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, Failure> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(Failure::plain(
            "a certificate needs its key, and a key its certificate",
        )
        .hint("give both --tls-cert FILE and --tls-key FILE")),
    }
}

/// Whether people's own domains lead to sprites: only where it is known which name is the API's.
fn custom_domains(asked: Option<Switch>, api_url: Option<&str>) -> Result<CustomDomains, Failure> {
    match (asked, api_url) {
        (None | Some(Switch::Off), _) => Ok(CustomDomains::Off),
        (Some(Switch::On), Some(_)) => Ok(CustomDomains::On),
        (Some(Switch::On), None) => Err(Failure::plain(
            "people's own domains could take the API's name, for nobody has said which that is",
        )
        .hint("add --api-url URL: the one name by which the API is reached")),
    }
}

/// Where the API is reached: never under the URL domain, where sprites could set cookies for it.
fn checked_api_url(text: &str, domain: &UrlDomain) -> Result<String, Failure> {
    let expected = "http:// or https:// and a host, with a port if it is not the usual one";
    let url = text.trim_end_matches('/');
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let host = rest.filter(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
    });
    let host = host.ok_or_else(|| invalid("api-url", text, expected))?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if domain.covers(name) {
        return Err(
            Failure::plain(format!("{text} is under the domain of sprites' URLs"))
                .hint("give the API a host beside that domain, or the sprites another domain"),
        );
    }
    Ok(url.to_owned())
}

/// Listeners of nothing secret, as given by flags or file: the operator says who reaches them.
fn required(flags: Vec<SocketAddr>, file: Option<Vec<SocketAddr>>) -> Vec<Listen> {
    let given = match file {
        Some(file) if flags.is_empty() => file,
        Some(_) | None => flags,
    };
    let listen = |address| Listen {
        address,
        required: true,
    };
    given.into_iter().map(listen).collect()
}

fn url_listeners(given: &[SocketAddr], guarded: bool) -> Result<Vec<Listen>, Failure> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    listen(given, guarded)
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
            url_listen: Vec::new(),
            tls_cert: None,
            tls_key: None,
            api_url: None,
            custom_domains: None,
            metrics_listen: Vec::new(),
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
        let urls = config.url_domain.urls(7774, UrlScheme::Http);
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
            .urls(7774, UrlScheme::Http);
        assert_eq!((local.scheme, local.port), (UrlScheme::Http, Some(7774)));
        let proxy = UrlDomain::parse("https://s.example.com")
            .expect("a URL")
            .urls(7774, UrlScheme::Http);
        assert_eq!((proxy.scheme, proxy.port), (UrlScheme::Https, None));
        assert_eq!((local.front, proxy.front), (Front::Direct, Front::Proxy));
        let own = UrlDomain::parse("s.example.com")
            .expect("a domain")
            .urls(443, UrlScheme::Https);
        assert_eq!((own.scheme, own.port), (UrlScheme::Https, Some(443)));
        assert_eq!(own.front, Front::Direct);
    }

    #[test]
    fn the_api_is_never_under_the_domain_of_sprites() {
        let domain = UrlDomain::parse("https://s.example.com").expect("a URL");
        for (given, kept) in [
            ("https://api.example.com/", "https://api.example.com"),
            ("http://127.0.0.1:7774", "http://127.0.0.1:7774"),
            ("https://[::1]:1", "https://[::1]:1"),
            ("https://as.example.com", "https://as.example.com"),
        ] {
            let url = checked_api_url(given, &domain).expect(given);
            assert_eq!(url, kept);
        }
        for bad in [
            "https://s.example.com",
            "https://API.S.example.com:8443",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://a/b",
            "https://a\"b",
        ] {
            assert!(checked_api_url(bad, &domain).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_are_mapped_only_where_the_name_of_the_api_is_known() {
        let with = |asked: Option<Switch>, api: Option<&str>| {
            let flags = ServeFlags {
                custom_domains: asked,
                api_url: api.map(str::to_owned),
                ..flags()
            };
            Config::load(flags).map(|config| config.custom_domains)
        };
        let api = Some("https://api.example.com");
        assert_eq!(with(None, api).ok(), Some(CustomDomains::Off));
        assert_eq!(with(Some(Switch::Off), None).ok(), Some(CustomDomains::Off));
        assert_eq!(with(Some(Switch::On), api).ok(), Some(CustomDomains::On));
        assert!(with(Some(Switch::On), None).is_err());
    }

    #[test]
    fn a_certificate_needs_a_key_and_a_listener() {
        let with = |cert: bool, key: bool, listen: bool| {
            let url_listen = listen.then(|| "0.0.0.0:443".parse().expect("an address"));
            Config::load(ServeFlags {
                tls_cert: cert.then(|| "c.pem".into()),
                tls_key: key.then(|| "k.pem".into()),
                url_listen: url_listen.into_iter().collect(),
                ..flags()
            })
        };
        assert!(with(true, true, true).is_ok());
        for (cert, key, listen) in [
            (true, false, true),
            (false, true, true),
            (true, true, false),
            // Others can reach it, and there is no TLS.
            (false, false, true),
        ] {
            assert!(with(cert, key, listen).is_err(), "{cert} {key} {listen}");
        }
    }
}
