//! The address of a server, and the pieces of a path and query below it.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

use crate::error::Error;

/// A text that is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a server address: {reason}")]
pub struct ServerUrlError {
    text: String,
    reason: &'static str,
}

/// The address of a server: scheme, host, port and an optional path below which the API lives.
///
/// Two addresses are equal only if all four are: a token that was stored for one is never sent to another.
/// The host is kept in lower case, the port always as a number, so `http://HOST` and `http://host:80/` are
/// equal, while `http://localhost` and `http://127.0.0.1` are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUrl {
    tls: bool,
    /// As in a URL: an IPv6 address has its brackets.
    host: String,
    port: u16,
    /// Empty, or begins with `/` and does not end with it.
    path: String,
}

impl ServerUrl {
    /// Whether the connection is encrypted (`https`).
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host as one connects to it: an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// The port, also where the address left it to the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is this computer, so that nothing sent there crosses a network.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost"
            || self
                .host()
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }

    /// `host[:port]`, as in the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == default_port(self.tls) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path below which the API lives: empty, or `/prefix`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let refuse = |reason| ServerUrlError {
            text: text.chars().take(200).collect::<String>(),
            reason,
        };
        let uri: Uri = text.trim().parse().map_err(|_| refuse("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(refuse("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it must not hold a user name or password"));
        }
        if authority.host().is_empty() {
            return Err(refuse("it has no host"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(refuse("it must not have a query or a fragment"));
        }
        let has_port_text = authority.as_str().len() > authority.host().len();
        let port = match (has_port_text, authority.port_u16()) {
            (_, Some(0)) | (true, None) => return Err(refuse("its port must be 1 to 65535")),
            (false, None) => default_port(tls),
            (_, Some(port)) => port,
        };
        let host = authority.host().to_ascii_lowercase();
        Ok(Self {
            tls,
            host,
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Writes `text` with every byte escaped that has a meaning in a path or a query.
///
/// Source: RFC 3986 §2.3, the unreserved characters.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// A path with its query, grown piece by piece, each escaped.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// Begins with `path`, taken as it is.
    pub(crate) fn new(path: &str) -> Self {
        Self {
            text: path.to_owned(),
            has_query: path.contains('?'),
        }
    }

    /// Adds one path segment below the path so far.
    ///
    /// # Errors
    /// The texts that would name another path, however they are escaped: the empty one, `.` and `..`.
    pub(crate) fn segment(mut self, segment: &str) -> Result<Self, Error> {
        if matches!(segment, "" | "." | "..") {
            return Err(Error::Unwritable {
                reason: format!("{segment:?} is no name"),
            });
        }
        self.text.push('/');
        escape(segment, &mut self.text);
        Ok(self)
    }

    /// Adds fixed text to the path.
    pub(crate) fn path(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Adds one parameter. Keys may repeat.
    pub(crate) fn param(mut self, key: &str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        escape(key, &mut self.text);
        self.text.push('=');
        escape(value, &mut self.text);
        self
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn param_opt(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.param(key, value),
            None => self,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().expect(text)
    }

    #[test]
    fn equal_addresses_are_equal_whatever_their_spelling() {
        assert_eq!(url("http://Example.org/"), url("http://example.org:80"));
        assert_eq!(
            url("https://example.org/api/"),
            url("https://example.org:443/api")
        );
        assert_eq!(
            url("http://127.0.0.1:7774").to_string(),
            "http://127.0.0.1:7774"
        );
        assert_eq!(url("https://h:443").to_string(), "https://h");
    }

    #[test]
    fn scheme_host_port_and_path_tell_servers_apart() {
        let one = url("http://127.0.0.1:7774");
        for other in [
            "https://127.0.0.1:7774",
            "http://localhost:7774",
            "http://127.0.0.1:7775",
            "http://127.0.0.1:7774/x",
        ] {
            assert_ne!(one, url(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_server_address_is_refused() {
        for bad in [
            "",
            "127.0.0.1:7774",
            "ftp://h",
            "http://",
            "http://user:secret@h",
            "http://h?x=1",
            "http://h#x",
            "http://h:0",
            "http://h:65536",
            "/x",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ipv6_hosts_are_connected_to_without_brackets() {
        let six = url("http://[::1]:7774");
        assert_eq!(
            (six.host(), six.port(), six.is_loopback()),
            ("::1", 7774, true)
        );
        assert_eq!(six.authority(), "[::1]:7774");
    }

    #[test]
    fn no_text_can_leave_its_segment_or_parameter() {
        let target = Target::new("/v1/sprites")
            .segment("a/b?c")
            .expect("a name")
            .path("/exec");
        let target = target.param("cmd", "a&b=c d+é").param("cmd", "");
        assert_eq!(
            target.as_str(),
            "/v1/sprites/a%2Fb%3Fc/exec?cmd=a%26b%3Dc%20d%2B%C3%A9&cmd="
        );
        for traversal in ["", ".", ".."] {
            assert!(
                Target::new("/v1/sprites").segment(traversal).is_err(),
                "{traversal:?}"
            );
        }
    }
}
