//! Whom a request is for, by the host that it names.
//!
//! Under the URL domain there are sprites and nothing else, whether a name there is one's or nobody's: no program that
//! a sprite shows to a browser finds the API on an origin that is near its own.

use axum::http::header;
use axum::http::request::Parts;
use sprite_types::{CustomDomain, OrgId, SpriteName};

use crate::config::SpriteUrls;

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Site {
    /// The API.
    Api,
    /// A sprite of that name, if there is one.
    Sprite(Address),
    /// Nobody: under the URL domain, and no name that a sprite can have.
    Nobody,
}

/// What a sprite's host says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// Its name and organisation, under the URL domain.
    Named {
        /// Its name.
        name: SpriteName,
        /// Whose it is.
        org: OrgId,
    },
    /// A domain that leads to it.
    Domain(CustomDomain),
}

impl Address {
    /// The URL at which that is.
    pub(crate) fn url(&self, urls: &SpriteUrls) -> String {
        match self {
            Self::Named { name, org } => urls.of(name, org),
            Self::Domain(domain) => urls.at(domain.as_str()),
        }
    }
}

/// Why nobody can be meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TwoHosts;

/// The host that a request names, with its port, as it was written.
///
/// # Errors
/// It names two. Source: RFC 9112 §3.2.
pub(crate) fn named(parts: &Parts) -> Result<Option<&str>, TwoHosts> {
    let mut headers = parts.headers.get_all(header::HOST).iter();
    let header = headers.next();
    if headers.next().is_some() {
        return Err(TwoHosts);
    }
    // The whole address of a request line, or of HTTP/2, goes before the header.
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    Ok(header.and_then(|value| value.to_str().ok()))
}

/// A host without port and closing dot, in lower case.
pub(crate) fn bare(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl SpriteUrls {
    /// Whom that host means, before anybody's own domains are looked at.
    pub(crate) fn site(&self, host: &str) -> Site {
        let host = bare(host);
        let below = host.strip_suffix(self.domain.as_str());
        let label = match below {
            None => return Site::Api,
            Some("") => return Site::Nobody,
            Some(label) => label.strip_suffix('.'),
        };
        match label {
            // Another domain that ends alike.
            None => Site::Api,
            Some(label) => address(label).map_or(Site::Nobody, Site::Sprite),
        }
    }
}

/// Reads `<name>-<orgid>`.
fn address(label: &str) -> Option<Address> {
    let (name, org) = label.rsplit_once('-')?;
    Some(Address::Named {
        name: name.parse().ok()?,
        org: org.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Front, UrlScheme};

    fn site(host: &str) -> Site {
        let urls = SpriteUrls {
            scheme: UrlScheme::Http,
            domain: "sprites.localhost".to_owned(),
            port: Some(7774),
            front: Front::Direct,
        };
        urls.site(host)
    }

    #[test]
    fn a_sprite_has_its_host_with_and_without_port() {
        let expected = Site::Sprite(Address::Named {
            name: "my-app".parse().expect("a name"),
            org: "bhmkra".parse().expect("an id"),
        });
        for host in [
            "my-app-bhmkra.sprites.localhost",
            "my-app-bhmkra.sprites.localhost:7774",
            "MY-App-bhmkra.Sprites.Localhost.",
            "my-app-bhmkra.sprites.localhost.:80",
        ] {
            assert_eq!(site(host), expected, "{host}");
        }
    }

    #[test]
    fn under_the_domain_there_is_nothing_else() {
        for host in [
            "sprites.localhost",
            "api.sprites.localhost",
            ".sprites.localhost",
            "a.my-app-bhmkra.sprites.localhost",
            "-bhmkra.sprites.localhost",
            "my_app-bhmkra.sprites.localhost",
            "my-app-bhmkr!.sprites.localhost:1",
            "my-app-.sprites.localhost",
        ] {
            assert_eq!(site(host), Site::Nobody, "{host}");
        }
        for host in [
            "localhost",
            "127.0.0.1:7774",
            "[::1]:7774",
            "evilsprites.localhost",
            "sprites.localhost.example.com",
            "",
        ] {
            assert_eq!(site(host), Site::Api, "{host}");
        }
    }
}
