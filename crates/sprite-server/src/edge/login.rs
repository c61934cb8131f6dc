//! How a browser becomes known to a private URL.
//!
//! # The way of a login
//! 1. A browser opens a private URL. The edge gives it a random *state* in a cookie of that host, and sends it to
//!    `/login` on the API's host, with the address that it wants and the hash of the state.
//! 2. There a person shows a token, in a form that only this very page can send, or has done so before (only where the
//!    API is reached over TLS: plain cookies go to every port of a host).
//! 3. The browser is sent back to `/.sprite-auth` of the sprite's host with a *code*, which is good once, for a minute,
//!    for that sprite, and only with the state whose hash was shown. The edge makes of it a cookie of that host.
//!
//! Where a browser is sent to is put together from a sprite's own address and a path: never from a whole address that
//! somebody else has written.

mod codes;
mod form;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sprite_api::query::Query;
use sprite_host::Sprite;
use sprite_types::TokenId;
use uuid::Uuid;

pub(super) use codes::Codes;
pub(crate) use form::routes;

use self::codes::Code;
use super::host::Address;
use super::keys::For;
use super::{Edge, Site, cookies, page};
use crate::problem::Answer;

/// The path of a sprite's host that is ours while its URL is private.
pub(super) const BACK: &str = "/.sprite-auth";
/// The path of the API's host where people log in.
pub(super) const LOGIN: &str = "/login";

/// How long a browser stays known to a sprite, in seconds. Then it is sent to log in again.
const KNOWN_FOR: u64 = 24 * 3600;
/// How long a browser has for a login, in seconds.
const STATE_FOR: u64 = 3600;

/// Longest path and query that a browser comes back to; from a longer one it comes back to the first page.
const LONGEST_PATH: usize = 2048;

/// A random text that nobody can guess: 244 bits.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// What of a state is told to others.
fn hash(state: &str) -> String {
    blake3::hash(state.as_bytes()).to_hex().to_string()
}

/// A path on the same host, whatever a browser makes of it. Source: URL standard: browsers read `\` as `/`, and pass
/// over tabs and ends of lines.
pub(super) fn path_here(path: &str) -> &str {
    let rest = path.strip_prefix('/');
    let stays = rest.is_some_and(|rest| !rest.starts_with(['/', '\\']));
    let printable = path.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if stays && printable && path.len() <= LONGEST_PATH {
        path
    } else {
        "/"
    }
}

/// Sends a browser elsewhere, with a GET.
fn send_to(place: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let place = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static("/"));
    for (name, value) in [
        (header::LOCATION, place),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A cookie of the host that sets it, which scripts do not see.
fn set_cookie(name: &str, value: &str, seconds: u64, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).expect("names and values of ours are printable")
}

impl Edge {
    /// Sends a browser that nobody knows to the login page; the same way to whatever sprite, there or not.
    pub(super) fn send_to_login(&self, host: &str, parts: &Parts) -> Response {
        let secure = self.secure();
        let name = cookies::name(cookies::STATE, secure);
        // Another window of the browser may be on its way with this one.
        let known = cookies::values(&parts.headers, &name)
            .find(|state| state.len() == 64 && state.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let state = known.map_or_else(secret, str::to_owned);
        let path = match parts.uri.path_and_query() {
            Some(path) if parts.uri.path() != BACK => path_here(path.as_str()),
            Some(_) | None => "/",
        };
        let query = query(host, path, &hash(&state));
        let base = &self.app.config.public_base;
        let mut response = send_to(&format!("{base}{LOGIN}?{query}"));
        let cookie = set_cookie(&name, &state, STATE_FOR, secure);
        response.headers_mut().append(header::SET_COOKIE, cookie);
        response
    }

    /// A browser comes back with a code. `None`: the code is not good, and the browser has to log in again.
    pub(super) fn come_back(&self, sprite: &Sprite, parts: &Parts) -> Option<Response> {
        let query = Query::parse(parts.uri.query().unwrap_or_default()).ok()?;
        let code = self.codes.take(query.get("code")?)?;
        let name = cookies::name(cookies::STATE, self.secure());
        let mut states = cookies::values(&parts.headers, &name);
        let same_browser = states.any(|state| hash(state) == code.state);
        if code.sprite != sprite.id || !same_browser {
            return None;
        }
        let mut response = send_to(path_here(&code.path));
        let until = self.now() + KNOWN_FOR;
        let value = self.keys.make(For::Sprite(sprite.id), &code.token, until);
        let name = cookies::name(cookies::SEEN, self.secure());
        let cookie = set_cookie(&name, &value, KNOWN_FOR, self.secure());
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Some(response)
    }

    /// Sends a browser back to the sprite that it came from, with a code.
    fn send_back(&self, sprite: &Sprite, wanted: &Wanted, token: TokenId) -> Response {
        let code = self.codes.give(Code {
            sprite: sprite.id,
            token,
            state: wanted.state.clone(),
            path: wanted.path.clone(),
        });
        let origin = wanted.address.url(&self.app.config.sprite_urls);
        send_to(&format!("{origin}{BACK}?code={code}"))
    }
}

/// What a browser tells the login page.
fn query(host: &str, path: &str, state: &str) -> String {
    let pairs = [("host", host), ("path", path), ("state", state)];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Query::from_pairs(pairs.into()).encode()
}

/// What a browser wants that has been sent to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// The host that it named, with its port.
    host: String,
    address: Address,
    path: String,
    state: String,
}

impl Wanted {
    /// Reads what [`Edge::send_to_login`] wrote, or somebody else. `None`: it makes no sense.
    async fn read(edge: &Edge, query: &str) -> Answer<Option<Self>> {
        let Ok(query) = Query::parse(query) else {
            return Ok(None);
        };
        let (Some(host), Some(state)) = (query.get("host"), query.get("state")) else {
            return Ok(None);
        };
        if state.len() != 64 || !state.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        Ok(match edge.site(host).await? {
            Site::Sprite(address) => Some(Self {
                host: host.to_owned(),
                address,
                path: path_here(query.get("path").unwrap_or("/")).to_owned(),
                state: state.to_owned(),
            }),
            Site::Nobody | Site::Api => None,
        })
    }

    fn query(&self) -> String {
        let Self {
            host, path, state, ..
        } = self;
        query(host, path, state)
    }
}

/// The answer to a browser whose code is not good: the same whatever is wrong with it, and never another way round.
pub(super) fn over() -> Response {
    let body = "<h1>This login is over</h1><p>Open the <a href=\"/\">sprite</a> again.</p>";
    page::page(StatusCode::FORBIDDEN, "Log in", "", body, page::POLICY)
}

/// The first header of that name, as text.
fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_nowhere_else() {
        for here in ["/", "/a/b?c=d&e=//f", "/a//b", "/%2F%2Fevil"] {
            assert_eq!(path_here(here), here);
        }
        let long = format!("/{}", "a".repeat(LONGEST_PATH));
        for elsewhere in [
            "",
            "//evil.example.com",
            "/\\evil.example.com",
            "\\\\evil",
            "https://evil.example.com",
            "evil",
            "/\t/evil",
            "/\r\nSet-Cookie: a=b",
            " /",
            "/ä",
            long.as_str(),
        ] {
            assert_eq!(path_here(elsewhere), "/", "{elsewhere}");
        }
    }
}
