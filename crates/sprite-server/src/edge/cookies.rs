//! Cookies of the edge among those of a sprite: no sprite reads one, and none sets one.

use axum::http::{HeaderMap, HeaderValue, header};

/// The cookie by which a browser is known to a sprite's URL.
pub(super) const SEEN: &str = "sprite-url";
/// The cookie by which a browser is known to be the one that went to log in.
pub(super) const STATE: &str = "sprite-url-login";
/// Before the name of a cookie that a browser takes from its own host over TLS alone.
/// Source: RFC 6265bis §4.1.3.2.
const HOST: &str = "__Host-";

/// How the cookie of that name is called.
pub(super) fn name(cookie: &str, secure: bool) -> String {
    let prefix = if secure { HOST } else { "" };
    format!("{prefix}{cookie}")
}

/// The values of the cookies of that name, the first ones.
pub(super) fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    /// Cookies of other sprites with which a browser may have been burdened.
    const MOST: usize = 16;
    let lines = headers.get_all(header::COOKIE).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(given, _)| given.trim() == name)
        .map(|(_, value)| value.trim())
        .take(MOST)
}

/// Removes our cookies from a request.
pub(super) fn hide(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    // HTTP/2 gives each cookie a line of its own; before, there is one line. Source: RFC 9113 §8.2.3.
    if lines.len() <= 1 && !lines.iter().any(|line| contains_ours(line.as_bytes())) {
        return;
    }
    headers.remove(header::COOKIE);
    let mut all: Vec<&[u8]> = Vec::new();
    for line in &lines {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        let pairs = pairs.map(<[u8]>::trim_ascii);
        all.extend(pairs.filter(|pair| !pair.is_empty() && !is_ours(pair)));
    }
    if !all.is_empty() {
        let line = HeaderValue::from_bytes(&all.join(&b"; "[..]));
        headers.insert(header::COOKIE, line.expect("its pieces were a value"));
    }
}

/// Removes from an answer what sets a cookie of ours.
pub(super) fn keep_ours(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .cloned()
        .collect();
    if !lines.iter().any(|line| is_ours(line.as_bytes())) {
        return;
    }
    headers.remove(header::SET_COOKIE);
    for line in lines {
        if !is_ours(line.as_bytes()) {
            headers.append(header::SET_COOKIE, line);
        }
    }
}

fn contains_ours(line: &[u8]) -> bool {
    line.split(|byte| *byte == b';')
        .any(|pair| is_ours(pair.trim_ascii()))
}

/// Whether `name=value…` is about a cookie of ours, whatever its case: servers differ in what they hold for equal.
fn is_ours(pair: &[u8]) -> bool {
    let name = pair.split(|byte| [b'=', b';'].contains(byte)).next();
    let name = name.unwrap_or_default().trim_ascii();
    let bare = match name.split_at_checked(HOST.len()) {
        Some((prefix, bare)) if prefix.eq_ignore_ascii_case(HOST.as_bytes()) => bare,
        Some(_) | None => name,
    };
    [SEEN, STATE]
        .iter()
        .any(|ours| bare.eq_ignore_ascii_case(ours.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).expect("a value"));
        }
        headers
    }

    fn left(name: &header::HeaderName, headers: &HeaderMap) -> Vec<String> {
        let lines = headers.get_all(name).iter();
        lines
            .map(|line| line.to_str().expect("text").to_owned())
            .collect()
    }

    #[test]
    fn ours_are_taken_out_among_others() {
        let mut given = headers(
            header::COOKIE,
            &[
                "a=1; sprite-url=secret; b=\"2\"",
                "__Host-sprite-url=secret",
                "sprite-url-login = s;c=3;SPRITE-URL=x",
                "xsprite-url=4; sprite-url-x=5",
            ],
        );
        hide(&mut given);
        assert_eq!(
            left(&header::COOKIE, &given),
            ["a=1; b=\"2\"; c=3; xsprite-url=4; sprite-url-x=5"]
        );
    }

    #[test]
    fn what_is_not_ours_passes_byte_for_byte() {
        for line in ["a=1;b=2;  c=3", "weird", "=nameless; ;"] {
            let mut given = headers(header::COOKIE, &[line]);
            hide(&mut given);
            assert_eq!(left(&header::COOKIE, &given), [line]);
        }
    }

    #[test]
    fn a_sprite_sets_its_own_and_none_of_ours() {
        let mut given = headers(
            header::SET_COOKIE,
            &[
                "a=1; Path=/",
                "sprite-url=; Max-Age=0",
                " __host-Sprite-Url=x; Secure",
                "sprite-url",
                "b=sprite-url=1",
            ],
        );
        keep_ours(&mut given);
        assert_eq!(
            left(&header::SET_COOKIE, &given),
            ["a=1; Path=/", "b=sprite-url=1"]
        );
    }

    #[test]
    fn values_are_found_among_others() {
        let given = headers(
            header::COOKIE,
            &["a=1; sprite-url=one", "sprite-url=two; __Host-sprite-url=3"],
        );
        let found: Vec<_> = values(&given, SEEN).collect();
        assert_eq!(found, ["one", "two"]);
        let found: Vec<_> = values(&given, &name(SEEN, true)).collect();
        assert_eq!(found, ["3"]);
    }
}
