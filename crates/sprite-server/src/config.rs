//! What the API tells about where it is.

use std::fmt;

use sprite_types::{OrgId, SpriteName};

use crate::edge::{UrlKey, bare};

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where clients reach this API, without a slash at the end: `http://127.0.0.1:7774`.
    pub public_base: String,
    /// Where sprites have their own URLs.
    pub sprite_urls: SpriteUrls,
    /// The secret of the cookies by which browsers are known.
    pub url_key: UrlKey,
    /// Whether domains of people's own lead to sprites.
    pub custom_domains: CustomDomains,
    /// Requests and switched connections of one sprite's URL at once. A machine carries 1536 connections, and some are
    /// to be left for everything else.
    pub url_requests: usize,
}

impl ServerConfig {
    /// As many requests at once as a sprite's URL takes unless something else is wanted.
    pub const URL_REQUESTS: usize = 1024;
}

/// Whether domains beside the URL domain lead to sprites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CustomDomains {
    /// None does: every host that is not under the URL domain is the API's.
    #[default]
    Off,
    /// Whoever has a token can map one that is free. Every name by which the API is reached, but for addresses, must
    /// then be that of [`ServerConfig::public_base`]: whoever maps another one gets what is sent there.
    On,
}

impl ServerConfig {
    /// Whether a host is the API's own, or below it, where a page could set cookies for it.
    pub(crate) fn is_the_apis(&self, host: &str) -> bool {
        let base = self.public_base.as_str();
        let base = base.split_once("://").map_or(base, |(_, rest)| rest);
        is_below(host, &bare(base))
    }

    /// Whether a host is the API's, the URL domain's, or below one of them.
    pub(crate) fn is_ours(&self, host: &str) -> bool {
        self.is_the_apis(host) || is_below(host, &self.sprite_urls.domain)
    }
}

/// Whether a host is a domain, or below it. Both are in lower case.
fn is_below(host: &str, domain: &str) -> bool {
    let below = host.strip_suffix(domain);
    below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

/// How a sprite's own URL is made: `{scheme}://{name}-{orgid}.{domain}[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpriteUrls {
    /// Its scheme.
    pub scheme: UrlScheme,
    /// The domain whose subdomains are sprites, for instance `sprites.localhost`.
    pub domain: String,
    /// Its port, if it is not the scheme's own.
    pub port: Option<u16>,
    /// Who clients speak to.
    pub front: Front,
}

/// Who clients of sprites' URLs speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// This server.
    Direct,
    /// A proxy on this computer or in its network, which tells in `X-Forwarded-For` whom it speaks for.
    Proxy,
}

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlScheme {
    /// Plain.
    Http,
    /// With TLS.
    Https,
}

impl fmt::Display for UrlScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl UrlScheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl SpriteUrls {
    /// The URL of a sprite. Source: behaviour reference §1.3, §4.4.
    #[must_use]
    pub fn of(&self, name: &SpriteName, org: &OrgId) -> String {
        let domain = &self.domain;
        self.at(&format!("{name}-{org}.{domain}"))
    }

    /// The URL of a sprite to which that host leads.
    pub(crate) fn at(&self, host: &str) -> String {
        let scheme = self.scheme;
        match self.port.filter(|port| *port != scheme.default_port()) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_names_are_known_however_the_api_is_written() {
        for base in [
            "https://api.example.com",
            "http://API.example.com:7774",
            "http://api.example.com.",
        ] {
            let config = ServerConfig {
                public_base: base.to_owned(),
                sprite_urls: SpriteUrls {
                    scheme: UrlScheme::Https,
                    domain: "sprites.example.com".to_owned(),
                    port: None,
                    front: Front::Direct,
                },
                url_key: UrlKey::new([7; UrlKey::LEN]),
                custom_domains: CustomDomains::On,
                url_requests: ServerConfig::URL_REQUESTS,
            };
            for ours in [
                "api.example.com",
                "a.api.example.com",
                "sprites.example.com",
                "a-b.sprites.example.com",
            ] {
                assert!(config.is_ours(ours), "{base} {ours}");
            }
            for other in ["example.com", "www.example.com", "myapi.example.com"] {
                assert!(!config.is_ours(other), "{base} {other}");
            }
        }
    }

    #[test]
    fn urls_carry_scheme_and_port() {
        let name: SpriteName = "my-sprite".parse().expect("a name");
        let org: OrgId = "bhmkra".parse().expect("an id");
        let local = SpriteUrls {
            scheme: UrlScheme::Http,
            domain: "sprites.localhost".to_owned(),
            port: Some(7774),
            front: Front::Direct,
        };
        assert_eq!(
            local.of(&name, &org),
            "http://my-sprite-bhmkra.sprites.localhost:7774"
        );
        let public = SpriteUrls {
            scheme: UrlScheme::Https,
            domain: "example.net".to_owned(),
            port: Some(443),
            front: Front::Proxy,
        };
        assert_eq!(
            public.of(&name, &org),
            "https://my-sprite-bhmkra.example.net"
        );
    }
}
