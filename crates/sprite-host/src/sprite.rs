//! Sprites and organisations as the host shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use sprite_catalog::{PrivateAccess, UrlAuth};
use sprite_types::{
    DriverKind, Generation, Incarnation, Label, MachineId, OrgId, OrgSlug, Resources, SpriteId,
    SpriteName, SpriteStatus, TokenId,
};
use time::OffsetDateTime;

/// Who asks: what a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organisation whose sprites it may use.
    pub org: OrgId,
    /// The organisation's name.
    pub slug: OrgSlug,
    /// The token that was shown.
    pub token: TokenId,
}

/// A sprite as it is in the catalog. A picture of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sprite {
    /// Its id, never used again.
    pub id: SpriteId,
    /// Its name, unique in its organisation.
    pub name: SpriteName,
    /// Its organisation.
    pub org: OrgId,
    /// Its organisation's name.
    pub org_slug: OrgSlug,
    /// What it does.
    pub status: SpriteStatus,
    /// Which driver makes its machines; fixed at its creation.
    pub driver: DriverKind,
    /// Its labels, in the order given.
    pub labels: Vec<Label>,
    /// Who may use its URL.
    pub url_auth: UrlAuth,
    /// Which people of the organisation its URL is for.
    pub private_access: PrivateAccess,
    /// How much of the host its machine may use.
    pub resources: Resources,
    /// Variables of every session.
    pub environment: BTreeMap<String, String>,
    /// Which owner may write its durable state.
    pub generation: Generation,
    /// How often it has run.
    pub incarnation: Incarnation,
    /// Its machine while it is running or warm.
    pub machine: Option<MachineId>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When its settings last changed.
    pub updated_at: OffsetDateTime,
    /// When it last began or ceased to run.
    pub last_running_at: Option<OffsetDateTime>,
    /// When it last fell asleep with its memory kept.
    pub last_warming_at: Option<OffsetDateTime>,
    /// Why its last wake or stop failed, until one succeeds.
    pub failure: Option<String>,
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

/// Settings to change; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Who may use the URL.
    pub url_auth: Option<UrlAuth>,
    /// Which people of the organisation the URL is for.
    pub private_access: Option<PrivateAccess>,
    /// All labels, in place of those there are; an empty list clears them.
    pub labels: Option<Vec<Label>>,
}

/// Which sprites are wanted, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
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

/// How many sprites an organisation has, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// With a machine that runs.
    pub running: u64,
    /// Asleep, memory kept.
    pub warm: u64,
    /// Asleep, disk only.
    pub cold: u64,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.running + self.warm + self.cold
    }
}

/// An organisation as the host shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub slug: OrgSlug,
    /// Its sprites now.
    pub counts: Counts,
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
