//! What is asked of the host, and what it shows beside the catalog's own picture of a sprite.

use std::collections::BTreeMap;
use std::time::Duration;

use sprite_catalog::{Idleness, PrivateAccess, Scope, Sprite, StatusCounts, UrlAuth};
use sprite_types::{
    CheckpointId, Label, OrgId, OrgSlug, Resources, ResourcesError, SpriteId, SpriteName, TokenId,
};
use time::OffsetDateTime;

use crate::error::EnvironmentError;

/// Who asks: what a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organisation whose sprites it may use.
    pub org: OrgId,
    /// The organisation's name.
    pub slug: OrgSlug,
    /// What stands for it.
    pub who: Who,
}

/// What a request shows to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A token of the organisation.
    Token(TokenId),
    /// Nothing: it comes out of this sprite, which may make sprites of its own.
    Sprite(SpriteId),
}

impl Principal {
    /// Which sprites it may know of.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.who {
            Who::Token(_) => Scope::Organisation,
            Who::Sprite(sprite) => Scope::MadeBy(sprite),
        }
    }

    /// Whether it may know of a sprite.
    #[must_use]
    pub fn sees(&self, sprite: &Sprite) -> bool {
        self.org == sprite.org
            && match self.scope() {
                Scope::Organisation => true,
                Scope::MadeBy(maker) => sprite.made_by == Some(maker),
            }
    }
}

/// What a sprite is created from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSprite {
    /// Its name.
    pub name: SpriteName,
    /// At most [`Label::MOST`].
    pub labels: Vec<Label>,
    /// Who may use its URL.
    pub url_auth: UrlAuth,
    /// Which people of the organisation its URL is for.
    pub private_access: PrivateAccess,
    /// Sizes that differ from the defaults of this host.
    pub resources: ResourceRequest,
    /// Variables of every session.
    pub environment: BTreeMap<String, String>,
    /// When it is idle.
    pub idleness: Idleness,
    /// Whether programs in it may make sprites of their own.
    pub api_access: bool,
    /// The sprite that makes it, if one does.
    pub made_by: Option<SpriteId>,
    /// Of what it is a fork.
    pub from: Option<ForkOf>,
}

/// The disk with which a new sprite begins, with the variables, services and policies of its sprite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkOf {
    /// A sprite of the same organisation.
    pub sprite: SpriteId,
    /// Which checkpoint of it; its disk as it is now if absent.
    pub checkpoint: Option<CheckpointId>,
}

impl NewSprite {
    /// A sprite of that name with every setting at its default.
    #[must_use]
    pub fn named(name: SpriteName) -> Self {
        Self {
            name,
            labels: Vec::new(),
            url_auth: UrlAuth::Sprite,
            private_access: PrivateAccess::Admins,
            resources: ResourceRequest::default(),
            environment: BTreeMap::new(),
            idleness: Idleness::default(),
            api_access: false,
            made_by: None,
            from: None,
        }
    }
}

/// Sizes asked for; what is absent gets the host's default. Ranges: [`Resources`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// Whole CPUs.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Nominal size of the disk in GB (2^30 bytes).
    pub storage_gb: Option<u32>,
}

impl ResourceRequest {
    /// These sizes; what is absent is as in `default`.
    pub(crate) fn or(self, default: Resources) -> Result<Resources, ResourcesError> {
        Resources {
            cpus: self.cpus.unwrap_or(default.cpus),
            memory_mib: self.memory_mib.unwrap_or(default.memory_mib),
            storage_gb: self.storage_gb.unwrap_or(default.storage_gb),
            ..default
        }
        .checked()
    }
}

/// Most bytes of all variables of a sprite together. They come before every session's own on its command line,
/// whose limit in Linux is 2 MiB with the default stack. Source: execve(2).
pub(crate) const MAX_ENVIRONMENT: usize = 256 << 10;

/// Checks that the variables can be given to a process.
pub(crate) fn check_environment(
    environment: &BTreeMap<String, String>,
) -> Result<(), EnvironmentError> {
    let cut = |name: &str| name.chars().take(80).collect();
    let mut bytes = 0;
    for (name, value) in environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(EnvironmentError::Name { name: cut(name) });
        }
        if value.contains('\0') {
            return Err(EnvironmentError::Value { name: cut(name) });
        }
        // With the '=' and the NUL that a process gets too.
        bytes += name.len() + value.len() + 2;
    }
    if bytes > MAX_ENVIRONMENT {
        return Err(EnvironmentError::TooLong {
            bytes,
            max: MAX_ENVIRONMENT,
        });
    }
    Ok(())
}

/// Which sprites are wanted, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only those that somebody may know of.
    pub scope: Scope,
    /// Only names that begin so.
    pub prefix: Option<String>,
    /// Only names behind this one; it need not exist.
    pub after: Option<String>,
    /// How many at most; more than [`ListQuery::MOST`] are never given.
    pub limit: u32,
}

impl ListQuery {
    /// Most sprites on one page.
    pub const MOST: u32 = 1000;
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their names.
    pub sprites: Vec<Sprite>,
    /// Whether there are more behind the last of them.
    pub has_more: bool,
}

/// An organisation as the host shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub slug: OrgSlug,
    /// Its sprites now.
    pub counts: StatusCounts,
    /// How many sprites it may have.
    pub max_sprites: u64,
}

/// How a sprite is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The finding.
    pub status: CheckStatus,
    /// For people.
    pub reason: String,
    /// When it was looked at.
    pub checked_at: OffsetDateTime,
    /// How long looking took.
    pub elapsed: Duration,
}

/// What a check found. Source: behaviour reference §1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// Its agent answers.
    Healthy,
    /// It sleeps; it was not woken to look.
    Hibernated,
    /// Its agent does not answer.
    Unhealthy,
    /// Its last wake or stop failed.
    Error,
}
