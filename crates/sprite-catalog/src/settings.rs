//! Settings of a sprite that are kept as words in the catalog.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A word that none of a closed set of settings is spelled like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a known {kind}: {text:?}")]
pub struct UnknownWord {
    kind: &'static str,
    text: String,
}

impl UnknownWord {
    pub(crate) fn new(kind: &'static str, text: &str) -> Self {
        // What is echoed is bounded: the text may come from a client.
        Self {
            kind,
            text: text.chars().take(80).collect(),
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// How it is spelled, in the catalog and on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    unknown => Err(UnknownWord::new($kind, unknown)),
                }
            }
        }
    };
}

words!(
    /// Who may use a sprite's URL. Source: behaviour reference §1.3.
    UrlAuth, "url auth", {
        /// Holders of a token of the sprite's organisation.
        Sprite = "sprite",
        /// Everyone.
        Public = "public",
    }
);

words!(
    /// Which connections keep a sprite awake.
    #[derive(Default)]
    Connections, "connections", {
        /// Every one that is open.
        #[default]
        Open = "open",
        /// Only bytes that go over one.
        Traffic = "traffic",
    }
);

/// How long a sprite runs on that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdleTimeout {
    /// As the server says.
    #[default]
    Server,
    /// It never falls asleep by itself.
    Never,
    /// So long; at least a millisecond.
    After(Duration),
}

impl IdleTimeout {
    /// As the catalog keeps it.
    pub(crate) fn millis(self) -> Option<i64> {
        match self {
            Self::Server => None,
            Self::Never => Some(0),
            Self::After(after) => Some(i64::try_from(after.as_millis()).unwrap_or(i64::MAX).max(1)),
        }
    }

    pub(crate) fn of_millis(millis: Option<u64>) -> Self {
        match millis {
            None => Self::Server,
            Some(0) => Self::Never,
            Some(millis) => Self::After(Duration::from_millis(millis)),
        }
    }
}

/// When a sprite is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Idleness {
    /// How long it runs on.
    pub timeout: IdleTimeout,
    /// Which connections keep it awake.
    pub connections: Connections,
}

words!(
    /// Which people of the organisation a non-public URL is for. Source: behaviour reference §1.3.
    PrivateAccess, "private access", {
        /// Its administrators.
        Admins = "admins",
        /// All of them.
        OrgUsers = "org_users",
    }
);
