//! What a visitor says of itself, tried with whatever bytes.

use axum::http::{HeaderMap, HeaderValue, header};
use sprite_types::{CustomDomain, SpriteId};

use super::cookies::{self, SEEN, STATE};
use super::host::{Site, bare};
use super::keys::{For, UrlKey};
use super::login::path_here;
use crate::config::{Front, SpriteUrls, UrlScheme};

/// Reads three lines as a host, as cookies, and as where a browser wants to go.
///
/// # Panics
/// A host means two things, a cookie of ours gets past, one that nobody made is good, or a browser is sent elsewhere.
pub(crate) fn try_visit(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (host, cookie, path) = (line(), line(), line());
    if let Ok(host) = std::str::from_utf8(host) {
        try_host(host);
    }
    if let Ok(cookie) = HeaderValue::from_bytes(cookie) {
        try_cookie(&cookie);
    }
    if let Ok(path) = std::str::from_utf8(path) {
        let here = path_here(path);
        let mut letters = here.chars();
        assert_eq!(letters.next(), Some('/'), "{path:?}");
        assert!(!matches!(letters.next(), Some('/' | '\\')), "{path:?}");
        assert!(HeaderValue::from_str(here).is_ok(), "{path:?}");
    }
}

fn try_host(host: &str) {
    let urls = SpriteUrls {
        scheme: UrlScheme::Http,
        domain: "sprites.localhost".to_owned(),
        port: Some(7774),
        front: Front::Direct,
    };
    match urls.site(host) {
        Site::Sprite(address) => {
            let url = address.url(&urls);
            let again = url.strip_prefix("http://").map(|host| urls.site(host));
            assert_eq!(again, Some(Site::Sprite(address)), "{host:?}");
        }
        Site::Nobody => assert!(bare(host).ends_with("sprites.localhost"), "{host:?}"),
        Site::Api => {
            if let Ok(domain) = bare(host).parse::<CustomDomain>() {
                assert_eq!(bare(domain.as_str()), domain.as_str(), "{host:?}");
                assert_eq!(urls.site(domain.as_str()), Site::Api, "{host:?}");
            }
        }
    }
}

fn try_cookie(line: &HeaderValue) {
    let mut headers = HeaderMap::new();
    headers.append(header::COOKIE, line.clone());
    headers.append(header::SET_COOKIE, line.clone());
    cookies::hide(&mut headers);
    for (name, secure) in [(SEEN, true), (SEEN, false), (STATE, true), (STATE, false)] {
        let name = cookies::name(name, secure);
        assert_eq!(cookies::values(&headers, &name).next(), None, "{line:?}");
    }
    cookies::keep_ours(&mut headers);
    for kept in headers.get_all(header::SET_COOKIE) {
        let name = kept.as_bytes().split(|byte| *byte == b'=').next();
        let name = name.unwrap_or_default().trim_ascii().to_ascii_lowercase();
        assert!(
            !name.ends_with(SEEN.as_bytes()) || name.len() > SEEN.len(),
            "{kept:?}"
        );
    }
    if let Ok(value) = line.to_str() {
        let key = UrlKey::new([7; UrlKey::LEN]);
        for purpose in [For::Login, For::Sprite(SpriteId::random())] {
            assert_eq!(key.read(value, purpose, 0), None, "{value:?}");
        }
    }
}
