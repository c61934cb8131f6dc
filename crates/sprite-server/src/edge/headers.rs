//! What of a request's and an answer's head passes the edge, and what it adds. Source: RFC 9110 §7.6, behaviour
//! reference §4.4.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::cookies;
use crate::config::UrlScheme;

/// The address from which a request comes.
pub(super) const CLIENT_IP: HeaderName = HeaderName::from_static("sprite-client-ip");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who stands in the way of an answer.
const VIA: HeaderValue = HeaderValue::from_static("1.1 sprited");

/// Headers that speak of one connection. Source: RFC 9110 §7.6.1.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the edge knows of a request's way here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// Where it began.
    pub(super) client: IpAddr,
    /// How.
    pub(super) scheme: UrlScheme,
    /// The host that it names, as it was written.
    pub(super) host: HeaderValue,
}

/// What is to be done with a token that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authorization {
    /// It is for this server, and nobody else's business.
    Ours,
    /// It is for the sprite.
    Theirs,
}

/// Makes of a request's headers those that the sprite gets.
pub(super) fn to_sprite(headers: &mut HeaderMap, way: &Way, authorization: Authorization) {
    let upgrade = upgrade(headers).cloned();
    let trailers = lists(headers, &header::TE, "trailers");
    remove_those_of_the_connection(headers);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| claims(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    match authorization {
        Authorization::Ours => {
            headers.remove(header::AUTHORIZATION);
        }
        Authorization::Theirs => {}
    }
    cookies::hide(headers);
    let client = HeaderValue::try_from(way.client.to_string()).expect("addresses are ASCII");
    let scheme = match way.scheme {
        UrlScheme::Http => "http",
        UrlScheme::Https => "https",
    };
    headers.insert(header::HOST, way.host.clone());
    headers.insert(CLIENT_IP, client.clone());
    headers.insert(FOR, client);
    headers.insert(PROTO, HeaderValue::from_static(scheme));
    headers.insert(HOST, way.host.clone());
    headers.append(header::VIA, VIA);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    if trailers {
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes of an answer's headers those that the client gets.
pub(super) fn from_sprite(headers: &mut HeaderMap) {
    remove_those_of_the_connection(headers);
    cookies::keep_ours(headers);
}

/// Whether an answer says two things about where it ends.
pub(super) fn has_two_lengths(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH)
}

/// The protocol to which a connection is to be switched, if that is one whose bytes we only pass on. HTTP/2 is none:
/// whoever could switch to it would send the sprite requests that nobody has looked at.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let http2 = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (lists(headers, &header::CONNECTION, "upgrade") && !http2).then_some(protocol)
}

/// Where a request began, if a proxy of ours has told: the last entry is the one that it wrote.
pub(super) fn told_client(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FOR).iter().next_back()?.to_str().ok()?;
    let last = last.rsplit(',').next()?.trim();
    let address: IpAddr = last.parse().ok()?;
    Some(address.to_canonical())
}

fn remove_those_of_the_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = words(headers, &header::CONNECTION)
        .filter_map(|word| word.parse().ok())
        // What these say is said anew, or is ours to remove.
        .filter(|name| ![header::HOST, header::CONTENT_LENGTH].contains(name))
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

/// Whether a header claims what only the edge can know. Programs that read `_` for `-` are many.
fn claims(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-")
        || ["forwarded", "x-real-ip", "sprite-client-ip"].contains(&name.as_str())
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// The entries of a header that is a list.
fn words<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(given: &[(&str, &str)], authorization: Authorization) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let way = Way {
            client: [192, 0, 2, 1].into(),
            scheme: UrlScheme::Https,
            host: HeaderValue::from_static("s-bhmkra.example.com"),
        };
        to_sprite(&mut headers, &way, authorization);
        headers
    }

    #[test]
    fn what_only_the_edge_can_know_is_the_edges() {
        let headers = passed(
            &[
                ("host", "elsewhere"),
                ("x-forwarded-for", "10.9.9.9"),
                ("x-forwarded-port", "1"),
                ("x_forwarded_for", "10.9.9.9"),
                ("forwarded", "for=10.9.9.9"),
                ("x-real-ip", "10.9.9.9"),
                ("sprite-client-ip", "10.9.9.9"),
                ("sprite_client_ip", "10.9.9.9"),
                ("via", "1.0 fred"),
            ],
            Authorization::Theirs,
        );
        let mut seen: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "host: s-bhmkra.example.com",
                "sprite-client-ip: 192.0.2.1",
                "via: 1.0 fred",
                "via: 1.1 sprited",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: s-bhmkra.example.com",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn what_speaks_of_one_connection_stays_there() {
        let headers = passed(
            &[
                ("connection", "keep-alive, X-Mine, host, content-length"),
                ("keep-alive", "timeout=5"),
                ("x-mine", "1"),
                ("content-length", "3"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip;q=0.5, trailers"),
                ("upgrade", "websocket"),
                ("accept", "*/*"),
            ],
            Authorization::Theirs,
        );
        for gone in ["keep-alive", "x-mine", "transfer-encoding", "upgrade"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["connection"], "te");
        assert_eq!(headers["accept"], "*/*");
        assert_eq!(headers["content-length"], "3");
        assert_eq!(headers["host"], "s-bhmkra.example.com");
    }

    #[test]
    fn a_connection_is_switched_to_what_is_only_passed_on() {
        let websocket = [
            ("connection", "Keep-Alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        let headers = passed(&websocket, Authorization::Theirs);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        let http2 = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
        ];
        let headers = passed(&http2, Authorization::Theirs);
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("connection"));
    }

    #[test]
    fn a_token_is_hidden_if_it_is_ours_alone() {
        let shown = [("authorization", "Bearer x")];
        assert!(passed(&shown, Authorization::Theirs).contains_key("authorization"));
        assert!(!passed(&shown, Authorization::Ours).contains_key("authorization"));
    }

    #[test]
    fn of_what_a_proxy_tells_the_last_word_is_its_own() {
        let mut headers = HeaderMap::new();
        assert_eq!(told_client(&headers), None);
        headers.append(FOR, HeaderValue::from_static("10.9.9.9"));
        headers.append(FOR, HeaderValue::from_static("10.9.9.8, ::ffff:192.0.2.7"));
        assert_eq!(told_client(&headers), Some([192, 0, 2, 7].into()));
        headers.append(FOR, HeaderValue::from_static("unknown"));
        assert_eq!(told_client(&headers), None);
    }
}
