//! Query strings in form encoding, with keys that may repeat.

/// Why a query string cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("query holds '%' without two hexadecimal digits behind it")]
    Percent,
    /// The decoded bytes are not text.
    #[error("query is not UTF-8")]
    Utf8,
}

/// The decoded pairs of a query string, in order.
///
/// `+` is a blank, as in forms. Source: behaviour reference §1.4.1 (request lines that SDKs send).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `text` (without the `?`). A key without `=` has the empty value.
    ///
    /// # Errors
    /// It is not form encoding, or not UTF-8 below it.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The pairs themselves.
    #[must_use]
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The pairs, in order.
    #[must_use]
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// The first value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// Every value of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// The first value of `key` as a switch: `true`, `1`, `yes`, `on`, or nothing behind the key; or their
    /// opposites. `None` if the key is absent, `Some(Err)` with the value if it is neither.
    #[must_use]
    pub fn switch(&self, key: &str) -> Option<Result<bool, &str>> {
        self.get(key).map(|value| match value {
            "true" | "1" | "yes" | "on" | "" | "True" | "TRUE" => Ok(true),
            "false" | "0" | "no" | "off" | "False" | "FALSE" => Ok(false),
            _ => Err(value),
        })
    }

    /// The pairs as a query string.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for (key, value) in &self.0 {
            if !out.is_empty() {
                out.push('&');
            }
            encode_into(key, &mut out);
            out.push('=');
            encode_into(value, &mut out);
        }
        out
    }
}

fn decode(text: &str) -> Result<String, QueryError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(bytes.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let high = digit().ok_or(QueryError::Percent)?;
                let low = digit().ok_or(QueryError::Percent)?;
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| QueryError::Utf8)
}

fn encode_into(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => {
                out.push('%');
                out.push(char::from(HEX[usize::from(other >> 4)]));
                out.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.4.1: real request lines of the Go and JavaScript SDKs.
    #[test]
    fn keys_repeat_and_plus_is_a_blank() {
        let query =
            Query::parse("cmd=sh&cmd=-c&cmd=exit+42&path=sh&stdin=false").expect("form encoding");
        assert_eq!(
            query.all("cmd").collect::<Vec<_>>(),
            ["sh", "-c", "exit 42"]
        );
        assert_eq!(query.get("path"), Some("sh"));
        assert_eq!(query.switch("stdin"), Some(Ok(false)));
        assert_eq!(query.switch("tty"), None);
        let query =
            Query::parse("env=TEST_VAR%3Dhello&env=A%3Db%3Dc%2Bd&tty").expect("form encoding");
        assert_eq!(
            query.all("env").collect::<Vec<_>>(),
            ["TEST_VAR=hello", "A=b=c+d"]
        );
        assert_eq!(query.switch("tty"), Some(Ok(true)));
    }

    #[test]
    fn broken_encodings_are_refused() {
        for text in ["a=%", "a=%4", "a=%zz", "%=1"] {
            assert_eq!(Query::parse(text), Err(QueryError::Percent), "{text}");
        }
        assert_eq!(Query::parse("a=%ff%fe"), Err(QueryError::Utf8));
        assert_eq!(Query::parse("&&").expect("nothing").get("a"), None);
    }

    proptest::proptest! {
        #[test]
        fn queries_read_what_they_write(pairs: Vec<(String, String)>) {
            let query = Query::from_pairs(pairs);
            proptest::prop_assert_eq!(Query::parse(&query.encode()), Ok(query));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,60}") {
            let _ = Query::parse(&text);
        }
    }
}
