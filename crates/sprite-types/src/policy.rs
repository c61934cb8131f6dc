//! What a sprite may do beyond itself, and how much of the host it may use: its policies.
//!
//! Each serialises as it stands in the API. Source: behaviour reference §1.11.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::resources::{Resources, ResourcesError};

/// Whether a machine reaches anything outside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// The internet.
    #[default]
    Open,
    /// Nothing, names included.
    Closed,
}

/// To where a sprite may connect. No rules: to everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// As they were given; at most [`NetworkPolicy::MOST`].
    pub rules: Vec<NetworkRule>,
}

impl NetworkPolicy {
    /// Most rules.
    pub const MOST: usize = 256;

    /// How it is enforced. Names are not told apart yet: whoever lists any is kept from all others by being kept
    /// from everything.
    #[must_use]
    pub fn egress(&self) -> Egress {
        if self.rules.is_empty() {
            Egress::Open
        } else {
            Egress::Closed
        }
    }
}

/// One rule of a [`NetworkPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NetworkRule {
    /// About names.
    Domain {
        /// Which.
        domain: DomainPattern,
        /// Whether they are allowed.
        action: RuleAction,
    },
    /// Rules that have a name.
    Include {
        /// Which.
        include: Preset,
    },
}

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

/// Rules that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// What developers commonly need.
    Defaults,
}

/// A word that is none of those known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {word:?} is not known, it must be {known}")]
pub struct UnknownWord {
    what: &'static str,
    word: String,
    known: &'static str,
}

impl UnknownWord {
    fn new(what: &'static str, word: &str, known: &'static str) -> Self {
        let word = word.chars().take(80).collect();
        Self { what, word, known }
    }
}

impl FromStr for RuleAction {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(UnknownWord::new("action", text, "allow or deny")),
        }
    }
}

impl FromStr for Preset {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "defaults" => Ok(Self::Defaults),
            _ => Err(UnknownWord::new("include", text, "defaults")),
        }
    }
}

/// A name (`example.org`), all names below one (`*.example.org`), or all names (`*`). Kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPattern(String);

/// A text that is no pattern of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("domain {text:?} {reason}")]
pub struct DomainError {
    text: String,
    reason: &'static str,
}

/// Longest name as text. Source: RFC 1035 §2.3.4, without the lengths of its labels.
const LONGEST_DOMAIN: usize = 253;
/// Source: RFC 1035 §2.3.4.
const LONGEST_LABEL: usize = 63;

impl DomainPattern {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainPattern {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let refuse = |reason| DomainError {
            text: text.chars().take(80).collect(),
            reason,
        };
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        if text.len() > LONGEST_DOMAIN {
            return Err(refuse("is longer than 253 characters"));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let mut last = "";
        for label in name.split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return Err(refuse("has a label of not 1 to 63 characters"));
            }
            let known = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
            if !label.bytes().all(known) || label.starts_with('-') || label.ends_with('-') {
                return Err(refuse(
                    "is not a name: letters, digits, '-' and '_', with '*' only as its first label",
                ));
            }
            last = label;
        }
        // No top-level domain is a number. Source: RFC 3696 §2.
        if last.bytes().all(|c| c.is_ascii_digit()) {
            return Err(refuse("is an address, rules are about names"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> String {
        pattern.0
    }
}

/// How much of the host a sprite may use, where it differs from what it was created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimit>,
    /// Of CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CountLimit>,
    /// Of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<CountLimit>,
}

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// In MiB.
    pub limit_mb: u32,
    /// Whether use may grow and shrink below the limit. It always may: memory is taken from the host when it is
    /// used, so that both values mean the same.
    #[serde(default)]
    pub autoscale: bool,
}

/// A limit of whole things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountLimit {
    /// How many at once.
    pub limit: u32,
}

impl ResourceLimits {
    /// The sizes of a sprite with these limits.
    ///
    /// # Errors
    /// A limit is out of its range.
    pub fn on(&self, created: Resources) -> Result<Resources, ResourcesError> {
        Resources {
            cpus: self.cpu.map_or(created.cpus, |cpu| cpu.limit),
            memory_mib: self
                .memory
                .map_or(created.memory_mib, |memory| memory.limit_mb),
            pids: self.pids.map_or(created.pids, |pids| pids.limit),
            storage_gb: created.storage_gb,
        }
        .checked()
    }
}

/// What sessions may become.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Privileges {
    /// Which capabilities there are.
    #[serde(default)]
    pub profile: Profile,
    /// Devices that must be there; they are for every sprite of the driver, or for none.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Whether no program gets more than the one that started it: no `sudo`, no set-uid.
    #[serde(default, rename = "noNewPrivileges")]
    pub no_new_privileges: bool,
}

impl Privileges {
    /// Most devices.
    pub const MOST_DEVICES: usize = 64;

    /// How a session is confined beyond what holds for all.
    #[must_use]
    pub fn confinement(&self) -> Confinement {
        match self.profile {
            Profile::Minimal => Confinement::NoCapabilities,
            Profile::Unset | Profile::Standard | Profile::Privileged => {
                if self.no_new_privileges {
                    Confinement::NoNewPrivileges
                } else {
                    Confinement::Usual
                }
            }
        }
    }
}

/// How a session is confined beyond what holds for all of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Not: `sudo` works.
    #[default]
    Usual,
    /// No program gets more than the one that started it.
    NoNewPrivileges,
    /// The same, and no capability is left that could be had, not by root either.
    NoCapabilities,
}

/// Which capabilities sessions can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As [`Profile::Standard`].
    #[default]
    #[serde(rename = "")]
    Unset,
    /// None, by no means.
    Minimal,
    /// What the driver's environments have.
    Standard,
    /// All of a kernel's. Only where that kernel is the sprite's own.
    Privileged,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "",
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Privileged => "privileged",
        })
    }
}

impl FromStr for Profile {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "" => Ok(Self::Unset),
            "minimal" => Ok(Self::Minimal),
            "standard" => Ok(Self::Standard),
            "privileged" => Ok(Self::Privileged),
            _ => Err(UnknownWord::new(
                "profile",
                text,
                "minimal, standard or privileged",
            )),
        }
    }
}

/// All policies of a sprite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// To where it may connect.
    pub network: NetworkPolicy,
    /// What its sessions may become.
    pub privileges: Privileges,
    /// How much of the host it may use.
    pub resources: ResourceLimits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names_with_at_most_one_star_in_front() {
        let longest = format!("{}.org", "a".repeat(63));
        for good in [
            "*",
            "example.org",
            "*.example.org",
            "a_b.Example.ORG",
            "localhost",
            &longest,
        ] {
            assert_eq!(
                good.parse::<DomainPattern>().map(String::from),
                Ok(good.to_owned())
            );
        }
        let long_label = format!("{}.org", "a".repeat(64));
        let long = ["a"; 128].join(".");
        for bad in [
            "",
            ".",
            "*.",
            "**",
            "*example.org",
            "a.*.org",
            "a..b",
            "example.org.",
            "-a.org",
            "a-.org",
            "a b.org",
            "a/b",
            "http://a.org",
            "1.2.3.4",
            "::1",
            "bücher.example",
            "a\0b",
            &long_label,
            &long,
        ] {
            assert!(bad.parse::<DomainPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn any_rule_closes_and_no_rule_is_open() {
        let mut policy = NetworkPolicy::default();
        assert_eq!(policy.egress(), Egress::Open);
        policy.rules.push(NetworkRule::Include {
            include: Preset::Defaults,
        });
        assert_eq!(policy.egress(), Egress::Closed);
    }

    #[test]
    fn limits_replace_what_the_sprite_was_created_with_within_its_ranges() {
        let created = Resources::default_for(2);
        assert_eq!(ResourceLimits::default().on(created), Ok(created));
        let memory = |limit_mb| ResourceLimits {
            memory: Some(MemoryLimit {
                limit_mb,
                autoscale: true,
            }),
            ..ResourceLimits::default()
        };
        assert_eq!(
            memory(128).on(created).map(|sizes| sizes.memory_mib),
            Ok(128)
        );
        assert!(memory(127).on(created).is_err());
        let none = ResourceLimits {
            pids: Some(CountLimit { limit: 0 }),
            ..ResourceLimits::default()
        };
        assert!(none.on(created).is_err());
    }

    #[test]
    fn the_profile_and_the_switch_say_how_sessions_are_confined() {
        let confinement = |profile, no_new_privileges| {
            Privileges {
                profile,
                no_new_privileges,
                devices: Vec::new(),
            }
            .confinement()
        };
        assert_eq!(confinement(Profile::Unset, false), Confinement::Usual);
        assert_eq!(
            confinement(Profile::Standard, true),
            Confinement::NoNewPrivileges
        );
        assert_eq!(
            confinement(Profile::Minimal, false),
            Confinement::NoCapabilities
        );
    }
}
