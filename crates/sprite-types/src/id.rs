//! Identifiers and counters. Each is its own type, so that two of them cannot be swapped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {text:?}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

impl ParseIdError {
    fn new(kind: &'static str, text: &str) -> Self {
        // What is echoed is bounded: the text may come from a hostile client.
        Self {
            kind,
            text: text.chars().take(80).collect(),
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new random identifier.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The identifier as the UUID below its prefix.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .filter(|rest| rest.len() == 36)
                    .and_then(|rest| Uuid::parse_str(rest).ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError::new($kind, text))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

uuid_id!(
    /// A sprite, for ever: a name may be used again after a delete, an id never. Text: `sprite-<uuid>`.
    SpriteId, "sprite-", "sprite id"
);
uuid_id!(
    /// One running incarnation of a sprite. Text: `machine-<uuid>`.
    MachineId, "machine-", "machine id"
);

macro_rules! base32_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Length of the text in characters, all of `a-z2-7`.
            pub const LEN: usize = $len;

            /// A new random identifier.
            #[must_use]
            pub fn random() -> Self {
                const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
                let bytes = Uuid::new_v4().into_bytes();
                // Bytes 6 and 8 of a version 4 UUID are not fully random; the first six are.
                const { assert!($len <= 6 || $len == 8) };
                let pick = |i: usize| {
                    let i = if i < 6 { i } else { i + 4 };
                    char::from(ALPHABET[usize::from(bytes[i] & 31)])
                };
                Self((0..$len).map(pick).collect())
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let fits = text.len() == $len
                    && text.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
                if fits { Ok(Self(text.to_owned())) } else { Err(ParseIdError::new($kind, text)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

base32_id!(
    /// An organisation: the suffix of its sprites' host names and the second part of its tokens.
    OrgId, 6, "organisation id"
);
base32_id!(
    /// The public part of a token, by which it is looked up.
    TokenId, 8, "token id"
);
base32_id!(
    /// One data directory's mark on this host: part of the name of every namespace, veth, nftables table,
    /// cgroup and socket that belongs to it, and short enough for an interface name (15 characters).
    InstanceId, 6, "instance id"
);

/// A session of a sprite: the decimal process id of its first process, as the agent sees it.
///
/// On the wire it is a JSON string. Source: behaviour reference §1.4.3, §1.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse()
            .map(Self)
            .map_err(|_| ParseIdError::new("session id", text))
    }
}

/// Fencing number: which owner of a sprite may write its durable state. Grows when a host takes it over.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// How many times a sprite has run. A snapshot belongs to exactly one incarnation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The incarnation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        let sprite = SpriteId::random();
        assert_eq!(sprite.to_string().parse::<SpriteId>(), Ok(sprite));
        let org = OrgId::random();
        assert_eq!(org.as_str().parse::<OrgId>(), Ok(org.clone()));
        let token = TokenId::random();
        assert_eq!(token.as_str().len(), TokenId::LEN);
    }

    #[test]
    fn foreign_texts_are_refused_and_bounded() {
        assert!("machine-123".parse::<MachineId>().is_err());
        assert!(
            "sprite-{4d486550-1953-4dfd-a452-cdabfd4a66}"
                .parse::<SpriteId>()
                .is_err()
        );
        assert!("ABCDEF".parse::<OrgId>().is_err());
        assert!("abcde".parse::<OrgId>().is_err());
        let error = "x"
            .repeat(10_000)
            .parse::<SpriteId>()
            .expect_err("no prefix");
        assert!(error.to_string().len() < 200);
    }
}
