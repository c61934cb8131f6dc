//! URLs that a program in a sprite wants opened in a person's browser.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A URL of the web: `http` or `https`, a host, printable ASCII without spaces, no user name. What a person is shown is
/// all that there is.
///
/// ```
/// use sprite_types::WebUrl;
///
/// let login = "https://id.example/authorize?redirect_uri=http%3A%2F%2Flocalhost%3A8976%2Fcallback";
/// let url: WebUrl = login.parse().expect("a URL of the web");
/// assert_eq!(url.callback_port(), Some(8976));
/// assert!("file:///etc/passwd".parse::<WebUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WebUrl(String);

/// Why a text is no [`WebUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebUrlError {
    /// It is too long.
    #[error("url has more than {} characters", WebUrl::LONGEST)]
    Long,
    /// It is of another scheme, or of none.
    #[error("url does not begin with http:// or https://")]
    Scheme,
    /// It holds what cannot be shown as it is.
    #[error("url holds a space, a control character or a character beyond ASCII: encode it")]
    Character,
    /// It names a user, as URLs do that want to look like others.
    #[error("url holds a user name")]
    User,
    /// It has no host.
    #[error("url has no host")]
    Host,
}

/// Parameters in which a login says where the browser is to come back to. Source: RFC 6749 §3.1.2.
const CALLBACKS: [&str; 2] = ["redirect_uri", "redirect_url"];

/// Hosts that are the computer of the browser itself.
const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

impl WebUrl {
    /// Most characters.
    pub const LONGEST: usize = 8192;

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The port on the browser's own computer to which the page leads back: that of a `redirect_uri` of the form
    /// `http://localhost:PORT…` or `http://127.0.0.1:PORT…`. 1 to 65,535.
    #[must_use]
    pub fn callback_port(&self) -> Option<u16> {
        let (_, query) = self.0.split_once('?')?;
        let query = query.split('#').next().unwrap_or_default();
        let mut values = query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            CALLBACKS.contains(&key).then(|| decoded(value))
        });
        values.find_map(|value| local_port(&value?))
    }
}

/// The port of a URL of this computer.
fn local_port(url: &str) -> Option<u16> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = authority.split_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !LOCAL.contains(&host) || !digits {
        return None;
    }
    port.parse().ok().filter(|port| *port != 0)
}

/// A value of a query without its percent encoding; `None` if it is not text then.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for WebUrl {
    type Err = WebUrlError;

    fn from_str(text: &str) -> Result<Self, WebUrlError> {
        if text.len() > Self::LONGEST {
            return Err(WebUrlError::Long);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WebUrlError::Character);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WebUrlError::Scheme)?;
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(WebUrlError::Scheme);
        }
        // Browsers take a backslash for a slash.
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(WebUrlError::User);
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(WebUrlError::Host);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for WebUrl {
    type Error = WebUrlError;

    fn try_from(text: String) -> Result<Self, WebUrlError> {
        text.parse()
    }
}

impl From<WebUrl> for String {
    fn from(url: WebUrl) -> Self {
        url.0
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_person_can_read_and_a_browser_opens_as_read_is_taken() {
        for good in [
            "http://a",
            "HTTPS://example.org:8443/x?y=z#w",
            "http://[::1]:80/",
            "https://xn--bcher-kva.example/",
        ] {
            assert!(good.parse::<WebUrl>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", WebUrlError::Scheme),
            ("example.org", WebUrlError::Scheme),
            ("file:///etc/passwd", WebUrlError::Scheme),
            ("javascript:alert(1)//http://", WebUrlError::Scheme),
            ("--version", WebUrlError::Scheme),
            (" http://a", WebUrlError::Character),
            ("http://a\n", WebUrlError::Character),
            ("http://a/\u{1b}[2J", WebUrlError::Character),
            ("http://a/\u{202e}b", WebUrlError::Character),
            ("http://bank.example@evil.example/", WebUrlError::User),
            ("http://", WebUrlError::Host),
            ("https:///x", WebUrlError::Host),
            ("http://:80", WebUrlError::Host),
        ] {
            assert_eq!(bad.parse::<WebUrl>(), Err(why), "{bad:?}");
        }
        let longest = format!("http://a/{}", "x".repeat(WebUrl::LONGEST - 9));
        assert!(longest.parse::<WebUrl>().is_ok());
        assert_eq!(
            format!("{longest}x").parse::<WebUrl>(),
            Err(WebUrlError::Long)
        );
    }

    #[test]
    fn the_port_that_a_login_comes_back_to_is_found() {
        let port = |query: &str| {
            let url: WebUrl = format!("https://id.example/a?{query}")
                .parse()
                .expect("a URL");
            url.callback_port()
        };
        for (query, wanted) in [
            (
                "redirect_uri=http%3A%2F%2Flocalhost%3A8976%2Foauth",
                Some(8976),
            ),
            ("a=b&redirect_uri=http://127.0.0.1:40001&c=d", Some(40001)),
            (
                "redirect_url=http%3a%2f%2flocalhost%3a1%2f#redirect_uri=x",
                Some(1),
            ),
            ("redirect_uri=http%3A%2F%2Flocalhost%2F", None),
            ("redirect_uri=https%3A%2F%2Flocalhost%3A1", None),
            ("redirect_uri=http%3A%2F%2Fexample.org%3A80", None),
            ("redirect_uri=http%3A%2F%2Flocalhost%3A0", None),
            ("redirect_uri=http%3A%2F%2Flocalhost%3A70000", None),
            (
                "redirect_uri=http%3A%2F%2Flocalhost%3A80%40evil.example",
                None,
            ),
            ("redirect_uri=http%3A%2F%2Flocalhost%3A+80", None),
            ("redirect_uri=%", None),
            ("redirect_uri=%ff", None),
            ("redirect_uri", None),
        ] {
            assert_eq!(port(query), wanted, "{query}");
        }
    }
}
