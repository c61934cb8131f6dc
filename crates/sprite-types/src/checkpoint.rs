//! What the checkpoints of a sprite are called.

use std::fmt;
use std::str::FromStr;

/// A checkpoint of a sprite, unique in it for ever. Source: behaviour reference §1.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckpointId {
    /// Somebody asked for it: `v1`, `v2`, …
    Asked(u32),
    /// It was made by itself: `auto-1`, `auto-2`, …
    Automatic(u32),
}

/// A text that names no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint is called v1, v2, … or auto-1, auto-2, …")]
pub struct CheckpointIdError;

impl CheckpointId {
    /// Whether it was made by itself.
    #[must_use]
    pub fn is_automatic(self) -> bool {
        match self {
            Self::Asked(_) => false,
            Self::Automatic(_) => true,
        }
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(number) => write!(f, "v{number}"),
            Self::Automatic(number) => write!(f, "auto-{number}"),
        }
    }
}

impl FromStr for CheckpointId {
    type Err = CheckpointIdError;

    fn from_str(text: &str) -> Result<Self, CheckpointIdError> {
        let (digits, of): (&str, fn(u32) -> Self) = match text.strip_prefix("auto-") {
            Some(digits) => (digits, Self::Automatic),
            None => (
                text.strip_prefix('v').ok_or(CheckpointIdError)?,
                Self::Asked,
            ),
        };
        // One name for each: neither `v01` nor `v+1`.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        match digits.parse() {
            Ok(number) if plain => Ok(of(number)),
            Ok(_) | Err(_) => Err(CheckpointIdError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_one_name() {
        for (text, id) in [
            ("v1", CheckpointId::Asked(1)),
            ("v4294967295", CheckpointId::Asked(u32::MAX)),
            ("auto-7", CheckpointId::Automatic(7)),
        ] {
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(id.to_string(), text);
        }
        for text in [
            "",
            "v",
            "v0",
            "v01",
            "v+1",
            "V1",
            "1",
            "auto-",
            "auto-0",
            "v-1",
            "v4294967296",
            "Current",
            "../v1",
            "v1/",
            "v1 ",
        ] {
            assert_eq!(
                text.parse::<CheckpointId>(),
                Err(CheckpointIdError),
                "{text}"
            );
        }
    }
}
