//! `GET /v1/sprites`: one page of the listing.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use sprite_api::sprite::{ContinuationToken, SpriteList};
use sprite_api::{ErrorBody, NDJSON, query::Query};
use sprite_host::{ListQuery, Principal};

use super::watch;
use crate::answer;
use crate::auth::Caller;
use crate::connection::{self, Connection};
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// Sprites on a page if nothing is asked for. Source: behaviour reference §1.3.
const PAGE_DEFAULT: u32 = 50;
/// Most sprites on a page; who asks for more gets these, and is told that there are more.
const PAGE_MOST: u32 = 100;

/// List sprites
///
/// In order of their names, a page at a time. With `Accept: application/x-ndjson` the answer is a stream
/// without an end instead: a line for each sprite as it is, then one for each change (`SpriteEvent`).
#[utoipa::path(
    get, path = "/v1/sprites", tag = "sprites", operation_id = "list_sprites",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("max_results" = Option<u32>, Query, description = "Sprites on a page, 1 to 100; 50 if absent"),
        ("continuation_token" = Option<String>, Query, description = "From the page before"),
    ),
    responses(
        (status = 200, description = "A page, or a stream of events", content(
            (SpriteList = "application/json"),
            (sprite_api::sprite::SpriteEvent = "application/x-ndjson"),
        )),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let query = connection::query(&parts)?;
    if accepts_ndjson(&parts.headers) {
        let prefix = query.get("prefix").map(str::to_owned);
        return Ok(watch::stream(app, caller, prefix, connection));
    }
    Ok(answer::ok(&page(&app, &caller, &query).await?))
}

async fn page(app: &App, caller: &Principal, query: &Query) -> Answer<SpriteList> {
    let scope = caller.scope();
    let wanted = ListQuery {
        scope,
        ..list_query(query)?
    };
    let page = app.host.list(&caller.org, wanted).await?;
    let counts = app.host.counts(&caller.org, scope).await?;
    let counts = super::org_counts(&caller.slug, counts);
    let last = page.sprites.last().filter(|_| page.has_more);
    Ok(SpriteList {
        next_continuation_token: last.map(|sprite| {
            ContinuationToken {
                last: sprite.name.to_string(),
            }
            .encode()
        }),
        sprites: page
            .sprites
            .iter()
            .map(|sprite| super::body(sprite, &app.config))
            .collect(),
        has_more: page.has_more,
        org: counts.clone(),
        counts,
    })
}

fn list_query(query: &Query) -> Answer<ListQuery> {
    let limit = match query.get("max_results").filter(|text| !text.is_empty()) {
        None => PAGE_DEFAULT,
        Some(text) => match text.parse::<u64>() {
            Ok(0) | Err(_) => {
                return Err(Problem::field(format!(
                    "max_results must be 1 to {PAGE_MOST}"
                )));
            }
            Ok(number) => u32::try_from(number).unwrap_or(PAGE_MOST).min(PAGE_MOST),
        },
    };
    let after = match query
        .get("continuation_token")
        .filter(|text| !text.is_empty())
    {
        None => None,
        Some(text) => Some(
            ContinuationToken::decode(text)
                .ok_or_else(|| Problem::field("continuation_token is none of this server's"))?
                .last,
        ),
    };
    let prefix = query
        .get("prefix")
        .filter(|text| !text.is_empty())
        .map(str::to_owned);
    Ok(ListQuery {
        prefix,
        after,
        limit,
        ..ListQuery::default()
    })
}

fn accepts_ndjson(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            part.split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(NDJSON))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Answer<ListQuery> {
        list_query(&Query::parse(text).expect("form encoding"))
    }

    /// Behaviour reference §1.3: 1 to 50 by the documents, 100 by the SDKs; a page is never longer.
    #[test]
    fn pages_have_a_limit() {
        assert_eq!(parsed("").expect("default").limit, 50);
        assert_eq!(parsed("max_results=100").expect("most").limit, 100);
        assert_eq!(parsed("max_results=101").expect("cut").limit, 100);
        assert_eq!(parsed("max_results=99999999999").expect("cut").limit, 100);
        for wrong in [
            "max_results=0",
            "max_results=-1",
            "max_results=x",
            "continuation_token=x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
