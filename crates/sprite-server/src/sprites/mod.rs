//! Sprites: create, get, list, update, delete, restart, check, upgrade. Source: behaviour reference §1.3.

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod upkeep;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use sprite_api::Stamp;
use sprite_api::sprite::{Config, OrgCounts, Sprite as Body, UrlSettings};
use sprite_host::{Connections, Counts, IdleTimeout, PrivateAccess, Sprite, UrlAuth};
use sprite_types::{Label, OrgSlug, RUNTIME_VERSION};

use crate::config::ServerConfig;

/// The shortest time after which a sprite may fall asleep: less than a client takes between two requests is no sleep.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// A sprite as the API shows it.
pub(crate) fn body(sprite: &Sprite, config: &ServerConfig) -> Body {
    Body {
        id: sprite.id,
        name: sprite.name.to_string(),
        organization: sprite.org_slug.to_string(),
        org_slug: sprite.org_slug.to_string(),
        url: config.sprite_urls.of(&sprite.name, &sprite.org),
        url_settings: UrlSettings {
            auth: Some(url_auth_text(sprite.url_auth).to_owned()),
            private_access: Some(private_access_text(sprite.private_access).to_owned()),
        },
        status: sprite.status,
        labels: sprite.labels.iter().map(Label::to_string).collect(),
        created_at: Stamp(sprite.created_at),
        updated_at: Stamp(sprite.updated_at),
        last_running_at: sprite.last_running_at.map(Stamp),
        last_warming_at: sprite.last_warming_at.map(Stamp),
        version: RUNTIME_VERSION.to_owned(),
        environment_version: RUNTIME_VERSION.to_owned(),
        config: Config {
            idle_timeout: Some(idle_timeout_text(sprite.idleness.timeout)),
            connections: Some(sprite.idleness.connections.to_string()),
            api_access: Some(sprite.api_access),
            ..sprite.resources.into()
        },
        environment: BTreeMap::clone(&sprite.environment),
        isolation: sprite.driver.into(),
        driver: sprite.driver,
        made_by: sprite.made_by,
        failure: sprite.failure.clone(),
    }
}

/// The counts of an organisation as the API shows them.
pub(crate) fn org_counts(slug: &OrgSlug, counts: Counts) -> OrgCounts {
    OrgCounts {
        name: slug.to_string(),
        running: counts.running,
        warm: counts.warm,
        cold: counts.cold,
        running_limit: None,
        warm_limit: None,
    }
}

fn url_auth_text(auth: UrlAuth) -> &'static str {
    match auth {
        UrlAuth::Sprite => "sprite",
        UrlAuth::Public => "public",
    }
}

fn private_access_text(access: PrivateAccess) -> &'static str {
    match access {
        PrivateAccess::Admins => "admins",
        PrivateAccess::OrgUsers => "org_users",
    }
}

fn idle_timeout_text(timeout: IdleTimeout) -> String {
    match timeout {
        IdleTimeout::Server => "server".to_owned(),
        IdleTimeout::Never => "never".to_owned(),
        IdleTimeout::After(after) if after.subsec_millis() == 0 => format!("{}s", after.as_secs()),
        IdleTimeout::After(after) => format!("{}ms", after.as_millis()),
    }
}

/// Reads fields one by one and keeps every rule that is broken, so that a client is told all of them at once.
#[derive(Debug, Default)]
struct Fields {
    errors: Vec<String>,
}

impl Fields {
    fn url_auth(&mut self, settings: Option<&UrlSettings>) -> Option<UrlAuth> {
        match settings?.auth.as_deref()? {
            "sprite" => Some(UrlAuth::Sprite),
            "public" => Some(UrlAuth::Public),
            other => self.wrong(format!(
                "url_settings.auth is {other:?}, it must be sprite or public"
            )),
        }
    }

    fn private_access(&mut self, settings: Option<&UrlSettings>) -> Option<PrivateAccess> {
        match settings?.private_access.as_deref()? {
            "admins" => Some(PrivateAccess::Admins),
            "org_users" => Some(PrivateAccess::OrgUsers),
            other => self.wrong(format!(
                "url_settings.private_access is {other:?}, it must be admins or org_users"
            )),
        }
    }

    fn idle_timeout(&mut self, config: Option<&Config>) -> Option<IdleTimeout> {
        let text = config?.idle_timeout.as_deref()?;
        match text {
            "server" => return Some(IdleTimeout::Server),
            "never" => return Some(IdleTimeout::Never),
            _duration => {}
        }
        match sprite_api::unit::parse_duration(text) {
            Ok(after) if after >= SHORTEST_IDLE => Some(IdleTimeout::After(after)),
            Ok(_) | Err(_) => self.wrong(format!(
                "config.idle_timeout is {:?}, it must be never, server or a duration of at least 1s",
                cut(text)
            )),
        }
    }

    fn connections(&mut self, config: Option<&Config>) -> Option<Connections> {
        let text = config?.connections.as_deref()?;
        match text.parse() {
            Ok(connections) => Some(connections),
            Err(_) => self.wrong(format!(
                "config.connections is {:?}, it must be open or traffic",
                cut(text)
            )),
        }
    }

    fn labels(&mut self, labels: Option<Vec<String>>) -> Option<Vec<Label>> {
        let labels = labels?;
        if labels.len() > Label::MOST {
            let count = labels.len();
            return self.wrong(format!(
                "sprite has {count} labels, at most {} are allowed",
                Label::MOST
            ));
        }
        labels
            .into_iter()
            .map(|text| match text.parse() {
                Ok(label) => Some(label),
                Err(error) => self.wrong(format!("label {:?}: {error}", cut(&text))),
            })
            .collect()
    }

    fn wrong<T>(&mut self, error: String) -> Option<T> {
        self.errors.push(error);
        None
    }
}

/// What of a client's text is said back to it.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
