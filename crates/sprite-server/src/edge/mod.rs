//! The URL edge: requests that name a sprite as their host go to the program that listens in it.
//!
//! # The way of a request
//! [`dispatch`] stands before everything else of a listener and looks at the host (`host`), which is under the URL
//! domain or, where they lead to sprites, one of people's own domains. One that is a sprite's is
//! admitted or not (`access`), which wakes nothing; then the sprite is woken, held, connected to (`stream`) and
//! brought the request (`forward`), without what is nobody's business but ours and with what only we know (`headers`,
//! `cookies`). A request in flight and a switched connection hold the sprite awake; a client's connection that waits
//! for its next request does not.
//!
//! # Browsers
//! Whoever opens a private URL without being known goes to the login page on the API's host (`login`), and comes back
//! with a code that is good once, for that sprite and that browser. It becomes a cookie of the sprite's host, which the
//! edge takes out of every request before the sprite sees it.
//!
//! Source: behaviour reference §4.4.

mod access;
mod cookies;
mod forward;
mod headers;
mod host;
mod keys;
mod login;
mod page;
mod places;
mod program;
#[cfg(any(test, feature = "fuzzing"))]
mod trial;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use sprite_api::ErrorKind;
use sprite_host::{LookupError, Sprite, UrlAuth};
use sprite_types::CustomDomain;
use time::OffsetDateTime;
use tower_service::Service;
use tracing::Instrument;

pub(crate) use host::bare;
pub use keys::UrlKey;
pub(crate) use login::routes as login_routes;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use trial::try_visit;

use self::access::{Admitted, Refused};
use self::forward::Passage;
use self::headers::Way;
use self::host::{Address, Site, TwoHosts};
use self::login::Codes;
use self::places::Places;
use crate::config::{CustomDomains, Front, UrlScheme};
use crate::connection::{Arrival, Connection, LongQuery};
use crate::metrics::Surface;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// What the edge has, one for all listeners: a login begins on one and ends on another. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge(Arc<Parties>);

/// See [`Edge`].
pub(crate) struct Parties {
    app: App,
    keys: UrlKey,
    codes: Codes,
    places: Places,
}

impl std::ops::Deref for Edge {
    type Target = Parties;

    fn deref(&self) -> &Parties {
        &self.0
    }
}

impl Edge {
    pub(crate) fn new(app: App) -> Self {
        let keys = app.config.url_key.clone();
        Self(Arc::new(Parties {
            app,
            keys,
            codes: Codes::default(),
            places: Places::default(),
        }))
    }

    /// Whether sprites' URLs are reached over TLS alone.
    fn secure(&self) -> bool {
        self.app.config.sprite_urls.scheme == UrlScheme::Https
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        OffsetDateTime::now_utc()
            .unix_timestamp()
            .try_into()
            .unwrap_or_default()
    }

    /// How a request came here.
    fn way(&self, parts: &Parts, host: HeaderValue) -> Way {
        let arrival = parts.extensions.get::<Arrival>().copied();
        let Arrival { peer, scheme } = arrival.unwrap_or_default();
        let urls = &self.app.config.sprite_urls;
        match urls.front {
            Front::Proxy if is_near(peer) => Way {
                client: headers::told_client(&parts.headers).unwrap_or(peer),
                scheme: urls.scheme,
                host,
            },
            Front::Proxy | Front::Direct => Way {
                client: peer,
                scheme,
                host,
            },
        }
    }
}

/// Whether an address can be that of a proxy of ours: one of this computer, or of its own network.
fn is_near(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        std::net::IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// Brings a request for a sprite's host to the sprite; there is nothing else.
pub(crate) async fn dispatch_urls(State(edge): State<Edge>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match edge.named(&parts).await {
        Ok((Site::Sprite(address), named)) => edge.answer(Some(address), named, parts, body).await,
        Ok((Site::Api | Site::Nobody, named)) => edge.answer(None, named, parts, body).await,
        Err(problem) => page::answer(problem, page::is_wanted(&parts.headers)),
    }
}

/// Brings a request for a sprite's host to the sprite, and every other to the API.
pub(crate) async fn dispatch(
    State((edge, mut api)): State<(Edge, Router)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    match edge.named(&parts).await {
        Ok((Site::Api, _)) => {
            // A router is always ready.
            let answer = api.call(Request::from_parts(parts, body)).await;
            answer.unwrap_or_else(|never| match never {})
        }
        Ok((Site::Nobody, named)) => edge.answer(None, named, parts, body).await,
        Ok((Site::Sprite(address), named)) => edge.answer(Some(address), named, parts, body).await,
        Err(problem) => page::answer(problem, page::is_wanted(&parts.headers)),
    }
}

impl Edge {
    /// Whom a request is for, and how it names it.
    async fn named(&self, parts: &Parts) -> Answer<(Site, String)> {
        let named = host::named(parts)
            .map_err(|TwoHosts| Problem::new(ErrorKind::Invalid, "the request names two hosts"))?;
        let named = named.unwrap_or_default().to_owned();
        Ok((self.site(&named).await?, named))
    }

    /// Whom that host means.
    async fn site(&self, named: &str) -> Answer<Site> {
        let config = &self.app.config;
        let site = config.sprite_urls.site(named);
        match (&site, config.custom_domains) {
            (Site::Api, CustomDomains::On) => {}
            (Site::Api, CustomDomains::Off) | (Site::Sprite(_) | Site::Nobody, _) => {
                return Ok(site);
            }
        }
        let host = bare(named);
        let domain = match host.parse::<CustomDomain>() {
            Ok(domain) if !config.is_the_apis(&host) => domain,
            Ok(_) | Err(_) => return Ok(Site::Api),
        };
        match self.app.host.sprite_at(&domain).await {
            Ok(_) => Ok(Site::Sprite(Address::Domain(domain))),
            Err(LookupError::NotFound) => Ok(Site::Api),
            // Not the API's all the same: what is sent there may be for a sprite.
            Err(error @ LookupError::Catalog(_)) => Err(error.into()),
        }
    }

    async fn answer(
        &self,
        address: Option<Address>,
        named: String,
        parts: Parts,
        body: Body,
    ) -> Response {
        let response = self.answer_uncounted(address, named, parts, body).await;
        self.app.metrics.count(Surface::Url, response.status());
        response
    }

    async fn answer_uncounted(
        &self,
        address: Option<Address>,
        named: String,
        parts: Parts,
        body: Body,
    ) -> Response {
        let person = page::is_wanted(&parts.headers);
        if parts.extensions.get::<LongQuery>().is_some() {
            let problem = Problem::new(ErrorKind::UriTooLong, "the request line is too long");
            return page::answer(problem, person);
        }
        if parts.uri.path() == login::BACK
            && let Some(answer) = self.back(address.as_ref(), &parts).await
        {
            return answer;
        }
        let Admitted {
            sprite,
            authorization,
        } = match self.admit(address.as_ref(), &parts.headers).await {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse(refused, &named, &parts, person),
        };
        // Only what is told at this level is told of each request.
        let span = tracing::debug_span!("url", org = %sprite.org_slug, sprite = %sprite.id);
        let host = HeaderValue::try_from(named).expect("it was a header or an authority");
        let passage = Passage {
            sprite,
            authorization,
            way: self.way(&parts, host),
            connection: parts
                .extensions
                .get::<Connection>()
                .cloned()
                .unwrap_or_default(),
        };
        let request = Request::from_parts(parts, body);
        match self.forward(request, passage).instrument(span).await {
            Ok(response) => response,
            Err(problem) => page::answer(problem, person),
        }
    }

    /// The answer to a browser that comes from the login page. `None`: the path is the sprite's.
    async fn back(&self, address: Option<&Address>, parts: &Parts) -> Option<Response> {
        let sprite = match address {
            Some(address) => match self.find(address).await {
                Ok(sprite) => sprite,
                Err(problem) => return Some(page::answer(problem, true)),
            },
            None => None,
        };
        let private = |sprite: &Sprite| sprite.url_auth == UrlAuth::Sprite;
        if sprite.as_ref().is_some_and(|sprite| !private(sprite)) {
            return None;
        }
        let back = sprite.and_then(|sprite| self.come_back(&sprite, parts));
        Some(back.unwrap_or_else(login::over))
    }

    fn refuse(&self, refused: Refused, host: &str, parts: &Parts, person: bool) -> Response {
        // What is sent elsewhere comes back as a GET.
        let can_come_back = [Method::GET, Method::HEAD].contains(&parts.method);
        match refused {
            Refused::Stranger if person && can_come_back => self.send_to_login(host, parts),
            Refused::Stranger => page::answer(access::stranger(), person),
            Refused::Known(problem) => page::answer(problem, person),
        }
    }
}
