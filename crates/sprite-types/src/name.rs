//! Names that people choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OrgId;

/// Why a name was refused; the text tells the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is the empty text.
    #[error("name is required")]
    Empty,
    /// The name is longer than the limit.
    #[error("name is {len} characters long, at most {max} are allowed")]
    TooLong {
        /// Its length in characters.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A character that a host name cannot have.
    #[error(
        "name may hold only lowercase letters, digits and '-', and neither begin nor end with '-'"
    )]
    Character,
    /// A character that the name of a service cannot have.
    #[error("name may hold only letters, digits, '-', '_' and '.', and not begin with '-' or '.'")]
    Service,
    /// A label of a sprite is not printable text.
    #[error("label may hold only printable characters without ','")]
    Label,
}

fn check_dns_label(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let len = text.chars().count();
    if len > max {
        return Err(NameError::TooLong { len, max });
    }
    let legal = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !legal || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Character);
    }
    Ok(())
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
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
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

text_type!(
    /// The name of a sprite, unique in its organisation: 1 to [`SpriteName::MAX`] characters of `a-z0-9-`,
    /// so that `<name>-<orgid>` is a legal DNS label.
    ///
    /// Source: behaviour reference §1.3 (name rule).
    SpriteName,
    |text| check_dns_label(text, SpriteName::MAX)
);

impl SpriteName {
    /// Longest name in characters: a DNS label of 63 less `-` and the organisation's id.
    pub const MAX: usize = 63 - 1 - OrgId::LEN;
}

text_type!(
    /// The name of an organisation in paths and tokens: 1 to 39 characters of `a-z0-9-`.
    OrgSlug,
    |text| check_dns_label(text, OrgSlug::MAX)
);

impl OrgSlug {
    /// Longest slug in characters.
    pub const MAX: usize = 39;
}

text_type!(
    /// The name of a task, unique in its sprite: 1 to [`TaskName::MAX`] characters of `a-z0-9-`.
    ///
    /// Source: behaviour reference §1.13.
    TaskName,
    |text| check_dns_label(text, TaskName::MAX)
);

impl TaskName {
    /// Longest name in characters.
    pub const MAX: usize = 63;
}

fn check_service(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let len = text.chars().count();
    if len > ServiceName::MAX {
        return Err(NameError::TooLong {
            len,
            max: ServiceName::MAX,
        });
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !text.bytes().all(legal) || text.starts_with(['-', '.']) {
        return Err(NameError::Service);
    }
    Ok(())
}

text_type!(
    /// The name of a service, unique in its sprite: 1 to [`ServiceName::MAX`] letters, digits, `-`, `_` and `.`, the
    /// first of them neither `-` nor `.`: it names a log file and stands in paths of the API.
    ///
    /// Source: behaviour reference §1.9.
    ServiceName,
    check_service
);

impl ServiceName {
    /// Longest name in characters.
    pub const MAX: usize = 63;
}

text_type!(
    /// A label of a sprite: 1 to [`Label::MAX`] printable characters without `,`.
    Label,
    |text| {
        let len = text.chars().count();
        if len == 0 {
            return Err(NameError::Empty);
        }
        if len > Label::MAX {
            return Err(NameError::TooLong { len, max: Label::MAX });
        }
        if text.chars().any(|c| c.is_control() || c == ',') {
            return Err(NameError::Label);
        }
        Ok(())
    }
);

impl Label {
    /// Longest label in characters.
    pub const MAX: usize = 128;
    /// Most labels of one sprite.
    pub const MOST: usize = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sprite_names_end_at_the_limit() {
        assert!("a".repeat(SpriteName::MAX).parse::<SpriteName>().is_ok());
        let over = SpriteName::MAX + 1;
        assert_eq!(
            "a".repeat(over).parse::<SpriteName>(),
            Err(NameError::TooLong {
                len: over,
                max: SpriteName::MAX
            })
        );
    }

    #[test]
    fn names_of_services_are_names_of_files() {
        let longest = "a".repeat(ServiceName::MAX);
        for good in ["web", "Web_2", "0", "a.b", "_x", &longest] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        let over = "a".repeat(ServiceName::MAX + 1);
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a b", "ä", "a\0", &over] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sprite_names_are_host_names() {
        for good in ["a", "my-sprite", "0", "a--b"] {
            assert!(good.parse::<SpriteName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a/b", "a\0"] {
            assert!(bad.parse::<SpriteName>().is_err(), "{bad:?}");
        }
    }
}
