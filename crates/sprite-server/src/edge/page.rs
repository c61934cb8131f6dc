//! Problems as people see them: a page for browsers, JSON for programs.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Pages run nothing and load nothing.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1.5rem;\
color:#222;background:#fafafa}h1{font-size:1.4rem}p{color:#555}input{font:inherit;width:100%;padding:.5rem;\
box-sizing:border-box}button{font:inherit;margin-top:1rem;padding:.5rem 1.5rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}p{color:#aaa}}";

/// Whether whoever asks shows what it gets to a person.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.to_ascii_lowercase().contains("text/html"))
    })
}

/// The answer to a problem, for a person if one asks.
pub(super) fn answer(problem: Problem, person: bool) -> Response {
    if !person {
        return problem.into_response();
    }
    let message = problem.message().to_owned();
    let answer = problem.into_response();
    let status = answer.status();
    let (title, text, again) = match status {
        StatusCode::SERVICE_UNAVAILABLE => (
            "Waking up…",
            "This sprite is starting. The page loads by itself as soon as it is there.",
            true,
        ),
        StatusCode::BAD_GATEWAY => (
            "Nothing answers here yet",
            "The sprite is awake, but no web server in it answered.",
            false,
        ),
        StatusCode::NOT_FOUND => (
            "There is no sprite here",
            "The address may be wrong, or the sprite is not yours.",
            false,
        ),
        _ => ("This did not work", "", false),
    };
    let refresh = if again {
        "<meta http-equiv=\"refresh\" content=\"2\">"
    } else {
        ""
    };
    let body = format!(
        "<h1>{title}</h1><p>{text}</p><p><small>{}</small></p>",
        escaped(&message)
    );
    let mut page = page(status, title, refresh, &body, POLICY);
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = answer.headers().get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// A page of ours. What is in it has been escaped.
pub(super) fn page(
    status: StatusCode,
    title: &str,
    head: &str,
    body: &str,
    policy: &str,
) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         {head}<title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let policy = HeaderValue::try_from(policy).expect("policies are printable");
    for (name, value) in [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_SECURITY_POLICY, policy),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("same-origin"),
        ),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Text as it stands in a page, in an attribute too.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
