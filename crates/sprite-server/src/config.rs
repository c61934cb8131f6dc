//! What the API tells about where it is.

use std::fmt;

use sprite_types::{OrgId, SpriteName};

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where clients reach this API, without a slash at the end: `http://127.0.0.1:7774`.
    pub public_base: String,
    /// Where sprites have their own URLs.
    pub sprite_urls: SpriteUrls,
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
        let Self {
            scheme,
            domain,
            port,
        } = self;
        match port.filter(|port| *port != scheme.default_port()) {
            Some(port) => format!("{scheme}://{name}-{org}.{domain}:{port}"),
            None => format!("{scheme}://{name}-{org}.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_carry_scheme_and_port() {
        let name: SpriteName = "my-sprite".parse().expect("a name");
        let org: OrgId = "bhmkra".parse().expect("an id");
        let local = SpriteUrls {
            scheme: UrlScheme::Http,
            domain: "sprites.localhost".to_owned(),
            port: Some(7774),
        };
        assert_eq!(
            local.of(&name, &org),
            "http://my-sprite-bhmkra.sprites.localhost:7774"
        );
        let public = SpriteUrls {
            scheme: UrlScheme::Https,
            domain: "example.net".to_owned(),
            port: Some(443),
        };
        assert_eq!(
            public.of(&name, &org),
            "https://my-sprite-bhmkra.example.net"
        );
    }
}
