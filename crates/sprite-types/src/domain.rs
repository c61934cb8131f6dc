//! Domains of people's own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A domain that leads to a sprite: a DNS name of two labels or more, in lower case, without a closing dot.
///
/// Names with letters beyond ASCII are taken as DNS knows them alone (`xn--bcher-kva.example`): two texts that a
/// person cannot tell apart are two names there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CustomDomain(String);

/// Why a text is no domain that can lead to a sprite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CustomDomainError {
    /// It is the empty text, or too long.
    #[error("a domain has 1 to {} characters", CustomDomain::LONGEST)]
    Length,
    /// It has letters that DNS does not.
    #[error("a domain is written in ASCII")]
    Unicode,
    /// A label is empty, too long, or has other characters.
    #[error("a domain is labels of 1 to 63 letters, digits and '-' with dots between them")]
    Label,
    /// It is one label.
    #[error("a domain has a dot in it")]
    Single,
    /// It is an address, or what stands for one.
    #[error("a domain is no address")]
    Address,
    /// It leads nowhere but to the computer that asks.
    #[error("names below localhost lead every computer to itself")]
    Localhost,
}

impl CustomDomain {
    /// Longest name as text. Source: RFC 1035 §2.3.4, without the lengths of its labels.
    pub const LONGEST: usize = 253;

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CustomDomain {
    type Err = CustomDomainError;

    fn from_str(text: &str) -> Result<Self, CustomDomainError> {
        if !text.is_ascii() {
            return Err(CustomDomainError::Unicode);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() || name.len() > Self::LONGEST {
            return Err(CustomDomainError::Length);
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !name.split('.').all(label) {
            return Err(CustomDomainError::Label);
        }
        let (_, last) = name.rsplit_once('.').ok_or(CustomDomainError::Single)?;
        // Browsers read what ends in a number as an address. Source: URL standard, "ends in a number"; no top-level
        // domain does: RFC 3696 §2.
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return Err(CustomDomainError::Address);
        }
        if last == "localhost" {
            return Err(CustomDomainError::Localhost);
        }
        Ok(Self(name))
    }
}

impl TryFrom<String> for CustomDomain {
    type Error = CustomDomainError;

    fn try_from(text: String) -> Result<Self, CustomDomainError> {
        text.parse()
    }
}

impl From<CustomDomain> for String {
    fn from(domain: CustomDomain) -> String {
        domain.0
    }
}

impl fmt::Display for CustomDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CustomDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_lower_case_without_the_closing_dot() {
        let long = format!("{}.example", "a".repeat(63));
        for (text, kept) in [
            ("Example.COM", "example.com"),
            ("www.example.com.", "www.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.example", "1.example"),
            (long.as_str(), long.as_str()),
        ] {
            let domain: CustomDomain = text.parse().expect(text);
            assert_eq!(domain.as_str(), kept);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_rule() {
        use CustomDomainError::{Address, Label, Length, Localhost, Single, Unicode};
        let long_label = format!("{}.example", "a".repeat(64));
        let long = vec!["a".repeat(63); 4].join(".");
        for (text, why) in [
            ("", Length),
            (".", Length),
            (long.as_str(), Length),
            ("bücher.example", Unicode),
            ("example．com", Unicode),
            (long_label.as_str(), Label),
            ("a..example", Label),
            (".example.com", Label),
            ("-a.example", Label),
            ("a-.example", Label),
            ("a_b.example", Label),
            ("*.example.com", Label),
            ("example.com:80", Label),
            ("http://example.com", Label),
            ("exam ple.com", Label),
            ("example", Single),
            ("127.0.0.1", Address),
            ("a.0x7f", Address),
            ("localhost", Single),
            ("a.localhost", Localhost),
        ] {
            assert_eq!(text.parse::<CustomDomain>(), Err(why), "{text:?}");
        }
    }
}
