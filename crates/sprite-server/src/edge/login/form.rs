//! The page on the API's host where a person shows a token.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use http_body_util::{BodyExt, Limited};
use sprite_api::query::Query;
use sprite_host::{AuthError, Principal, Who};

use super::{LOGIN, Wanted, set_cookie, text};
use crate::edge::access::{known, may_open};
use crate::edge::host::bare;
use crate::edge::keys::For;
use crate::edge::page::{self, escaped};
use crate::edge::{Edge, cookies};
use crate::problem::Answer;

/// The cookie by which a browser is known to the login page.
const SESSION: &str = "sprited-login";
/// How long a browser stays known to the login page, in seconds.
const SESSION_FOR: u64 = 7 * 24 * 3600;

/// Longest form in bytes: a token and what was wanted.
const LONGEST_FORM: usize = 16 << 10;

/// The login page, to be laid beside the routes of the API.
pub(crate) fn routes(edge: Edge) -> Router {
    Router::new()
        .route(LOGIN, get(show).post(submit))
        .with_state(edge)
}

async fn show(State(edge): State<Edge>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let wanted = match Wanted::read(&edge, query).await {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return senseless(),
        Err(problem) => return page::answer(problem, true),
    };
    match edge.session(request.headers()).await {
        Ok(Some(principal)) => edge.enter(&wanted, &principal).await,
        Ok(None) => edge.form(&wanted, StatusCode::OK, ""),
        Err(problem) => page::answer(problem, true),
    }
}

async fn submit(State(edge): State<Edge>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let wanted = match Wanted::read(&edge, query).await {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return senseless(),
        Err(problem) => return page::answer(problem, true),
    };
    if !is_from_this_page(&parts.headers) {
        return edge.form(
            &wanted,
            StatusCode::FORBIDDEN,
            "That form did not come from this page. Try it here.",
        );
    }
    let Some(token) = token(body).await else {
        return edge.form(&wanted, StatusCode::BAD_REQUEST, "Paste a token.");
    };
    match edge.app.host.authenticate(&token).await {
        Ok(principal) => {
            let mut response = edge.enter(&wanted, &principal).await;
            if response.status().is_redirection() {
                edge.remember(&mut response, &principal.who);
            }
            response
        }
        Err(AuthError::Malformed | AuthError::Unknown) => edge.form(
            &wanted,
            StatusCode::UNAUTHORIZED,
            "That token is not known here.",
        ),
        Err(error @ AuthError::Catalog(_)) => page::answer(error.into(), true),
    }
}

/// The token in a form.
async fn token(body: Body) -> Option<String> {
    let body = Limited::new(body, LONGEST_FORM).collect().await.ok()?;
    let body = String::from_utf8(body.to_bytes().into()).ok()?;
    // In a form a blank is a plus; no token has either.
    let form = Query::parse(&body).ok()?;
    let token = form.get("token")?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// Whether a browser says that a page of this very host sent the form. All browsers tell of every POST.
/// Source: Fetch standard, `Origin` and `Sec-Fetch-Site`.
fn is_from_this_page(headers: &HeaderMap) -> bool {
    let site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    let origin = text(headers, &header::ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, text(headers, &header::HOST)) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

impl Edge {
    /// Whether the API is reached over TLS, so that a cookie of its host goes there and nowhere else.
    fn keeps_sessions(&self) -> bool {
        self.app.config.public_base.starts_with("https://")
    }

    /// Who has logged in here before.
    async fn session(&self, headers: &HeaderMap) -> Answer<Option<Principal>> {
        if !self.keeps_sessions() {
            return Ok(None);
        }
        let name = cookies::name(SESSION, true);
        for value in cookies::values(headers, &name) {
            let Some(token) = self.keys.read(value, For::Login, self.now()) else {
                continue;
            };
            if let Some(principal) = known(self.app.host.holder(&token).await)? {
                return Ok(Some(principal));
            }
        }
        Ok(None)
    }

    fn remember(&self, response: &mut Response, who: &Who) {
        let token = match who {
            Who::Token(token) if self.keeps_sessions() => token,
            Who::Token(_) | Who::Sprite(_) => return,
        };
        let until = self.now() + SESSION_FOR;
        let value = self.keys.make(For::Login, token, until);
        let cookie = set_cookie(&cookies::name(SESSION, true), &value, SESSION_FOR, true);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }

    /// Somebody who is known goes back to the sprite, if it is for them.
    async fn enter(&self, wanted: &Wanted, principal: &Principal) -> Response {
        let sprite = match self.find(&wanted.address).await {
            Ok(sprite) => sprite,
            Err(problem) => return page::answer(problem, true),
        };
        match (
            sprite.filter(|sprite| may_open(principal, sprite)),
            &principal.who,
        ) {
            (Some(sprite), Who::Token(token)) => self.send_back(&sprite, wanted, token.clone()),
            (Some(_) | None, Who::Token(_) | Who::Sprite(_)) => {
                let message = format!(
                    "The organization {} has no sprite there. Use another's token.",
                    principal.slug
                );
                self.form(wanted, StatusCode::NOT_FOUND, &message)
            }
        }
    }

    fn form(&self, wanted: &Wanted, status: StatusCode, message: &str) -> Response {
        let (host, query) = (escaped(&bare(&wanted.host)), escaped(&wanted.query()));
        let body = format!(
            "<h1>Log in</h1><p>The sprite at <b>{host}</b> is private. Show a token of its organization.</p>\
             <p role=\"alert\">{}</p>\
             <form method=\"post\" action=\"{LOGIN}?{query}\"><label for=\"token\">Token</label>\
             <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"off\" autofocus required>\
             <button>Open the sprite</button></form>\
             <p><small>A token is made with <code>sprited token create</code>.</small></p>",
            escaped(message)
        );
        // Browsers ask of the place to which a form's answer leads, too.
        let place = wanted.address.url(&self.app.config.sprite_urls);
        let policy = format!("{}; form-action 'self' {place}", page::POLICY);
        page::page(status, "Log in", "", &body, &policy)
    }
}

fn senseless() -> Response {
    let body = "<h1>Log in</h1><p>Open the URL of a private sprite: it leads here, and back.</p>";
    page::page(StatusCode::BAD_REQUEST, "Log in", "", body, page::POLICY)
}
