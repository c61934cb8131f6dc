//! A browser becomes known to a private URL, and to nothing else.

use std::collections::BTreeMap;

use serde_json::json;
use sprite_host::{NewSprite, Who};

use super::{Program, host_of, make_public, served};
use crate::setup::Server;
use crate::setup::http::{Answer, Coming, read_head};

const HTML: &str = "Accept: text/html,*/*;q=0.8\r\n";

/// A browser that keeps cookies by host, and goes where it is sent when the test says so.
#[derive(Default)]
pub(super) struct Browser {
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    pub(super) async fn get(&mut self, server: &Server, url: &str) -> Answer {
        self.ask(server, "GET", url, HTML, "").await
    }

    async fn ask(
        &mut self,
        server: &Server,
        method: &str,
        url: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        let (host, path) = split(url);
        let jar: Vec<_> = self
            .cookies
            .iter()
            .filter(|((whose, _), _)| *whose == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let cookie = match jar.join("; ") {
            none if none.is_empty() => none,
            some => format!("Cookie: {some}\r\n"),
        };
        let length = body.len();
        let mut io = server
            .raw(&format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{cookie}{headers}\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let answer = Coming::new(read_head(&mut io).await, io).whole().await;
        for cookie in answer.head.all("set-cookie") {
            let (pair, _) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies
                .insert((host.clone(), name.to_owned()), value.to_owned());
        }
        answer
    }

    /// Shows a token in the form at `url`.
    pub(super) async fn submit(&mut self, server: &Server, url: &str, token: &str) -> Answer {
        let (host, _) = split(url);
        let headers = format!(
            "{HTML}Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n"
        );
        let body = format!("token={}", token.replace('/', "%2F"));
        self.ask(server, "POST", url, &headers, &body).await
    }

    /// Logs in to a URL, until the sprite answers.
    pub(super) async fn log_in(&mut self, server: &Server, url: &str) -> Answer {
        let login = place(&self.get(server, url).await);
        let token = server.test.token.clone();
        let back = place(&self.submit(server, &login, &token).await);
        let here = place(&self.get(server, &back).await);
        let (host, _) = split(url);
        self.get(server, &format!("http://{host}{here}")).await
    }

    pub(super) fn cookie(&self, host: &str, name: &str) -> Option<&String> {
        self.cookies.get(&(host.to_owned(), name.to_owned()))
    }
}

fn split(url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (host.to_owned(), format!("/{path}"))
}

/// Where an answer sends its browser.
pub(super) fn place(answer: &Answer) -> String {
    assert_eq!(answer.status(), 303, "{answer:?}");
    answer.head.header("location").unwrap().to_owned()
}

pub(super) fn page(answer: &Answer) -> String {
    String::from_utf8(answer.body()).unwrap()
}

#[tokio::test]
async fn a_browser_logs_in_and_the_sprite_sees_nothing_of_it() {
    let (server, host) = served().await;
    let _program = Program::echo(&server, 8080).await;
    let mut browser = Browser::default();
    let url = format!("http://{host}/a?b=c&d=%2F");
    let away = browser.get(&server, &url).await;
    assert_eq!(away.head.header("cache-control"), Some("no-store"));
    let login = place(&away);
    assert!(
        login.starts_with(&format!("http://{}/login?", server.addr)),
        "{login}"
    );
    let form = browser.get(&server, &login).await;
    assert_eq!(form.status(), 200);
    assert_eq!(form.head.header("x-frame-options"), Some("DENY"));
    let policy = form.head.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(
        policy.contains(&format!("form-action 'self' http://{host}")),
        "{policy}"
    );
    let token = server.test.token.clone();
    let wrong = browser.submit(&server, &login, "a/b/c/d").await;
    assert_eq!(wrong.status(), 401);
    let back = place(&browser.submit(&server, &login, &token).await);
    assert!(
        back.starts_with(&format!("http://{host}/.sprite-auth?code=")),
        "{back}"
    );
    let known = browser.get(&server, &back).await;
    assert_eq!(place(&known), "/a?b=c&d=%2F");
    let cookie = known.head.all("set-cookie")[0].to_owned();
    for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let seen = page(&browser.get(&server, &url).await);
    assert!(seen.starts_with("GET /a?b=c&d=%2F HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("cookie"), "{seen}");
    // Among the sprite's own cookies too; and what it says in Authorization is its own business then.
    browser
        .cookies
        .insert((host.clone(), "theirs".to_owned()), "1".to_owned());
    let headers = format!("{HTML}Authorization: Bearer theirs\r\n");
    let seen = page(&browser.ask(&server, "GET", &url, &headers, "").await);
    assert!(seen.contains("\r\ncookie: theirs=1\r\n"), "{seen}");
    assert!(seen.contains("authorization: Bearer theirs"), "{seen}");
    // No cookie opens the API.
    let (addr, cookie) = (server.addr, browser.cookie(&host, "sprite-url").unwrap());
    let mut io = server
        .raw(&format!(
            "GET /v1/sprites HTTP/1.1\r\nHost: {addr}\r\nCookie: sprite-url={cookie}\r\n\r\n"
        ))
        .await;
    assert_eq!(read_head(&mut io).await.status, 401);
}

#[tokio::test]
async fn a_code_is_good_once_for_one_sprite_and_one_browser() {
    let (server, host) = served().await;
    let _program = Program::echo(&server, 8080).await;
    let other: NewSprite = NewSprite::named("other".parse().unwrap());
    let org = server.test.principal.org.clone();
    server.test.host.create(&org, other).await.unwrap();
    let other = host_of(&server, "other").await;
    let token = server.test.token.clone();
    let url = format!("http://{host}/");
    let mut browser = Browser::default();
    let login = place(&browser.get(&server, &url).await);
    let back = place(&browser.submit(&server, &login, &token).await);
    // Another browser: somebody was sent a link.
    let mut stranger = Browser::default();
    stranger.get(&server, &url).await;
    let refused = stranger.get(&server, &back).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(stranger.cookie(&host, "sprite-url"), None);
    // That used it up.
    assert_eq!(browser.get(&server, &back).await.status(), 403);
    // At another sprite, with the right state there.
    let back = place(&browser.submit(&server, &login, &token).await);
    let state = browser.cookie(&host, "sprite-url-login").unwrap().clone();
    browser
        .cookies
        .insert((other.clone(), "sprite-url-login".to_owned()), state);
    let elsewhere = back.replace(&host, &other);
    assert_eq!(browser.get(&server, &elsewhere).await.status(), 403);
    // Twice.
    let back = place(&browser.submit(&server, &login, &token).await);
    assert_eq!(browser.get(&server, &back).await.status(), 303);
    assert_eq!(browser.get(&server, &back).await.status(), 403);
    // Of none, and of no sprite, the same.
    for nothing in ["", "?code=", "?code=abc", "?code=a&code=b", "?%"] {
        for host in [&host, &host.replacen("s-", "none-", 1)] {
            let url = format!("http://{host}/.sprite-auth{nothing}");
            assert_eq!(browser.get(&server, &url).await.status(), 403, "{url}");
        }
    }
}

#[tokio::test]
async fn a_cookie_of_one_sprite_opens_no_other_and_ends_with_its_token() {
    let (server, host) = served().await;
    let _program = Program::echo(&server, 8080).await;
    server.test.create("other").await;
    let other = host_of(&server, "other").await;
    let mut browser = Browser::default();
    let seen = browser.log_in(&server, &format!("http://{host}/")).await;
    assert_eq!(seen.status(), 200);
    let cookie = browser.cookie(&host, "sprite-url").unwrap().clone();
    browser
        .cookies
        .insert((other.clone(), "sprite-url".to_owned()), cookie.clone());
    let away = browser.get(&server, &format!("http://{other}/")).await;
    assert_eq!(away.status(), 303);
    // One that another sprite has set for both hosts is passed over.
    let tossed = format!("{HTML}Cookie: sprite-url=x; sprite-url={cookie}\r\n");
    let url = format!("http://{host}/");
    let mut plain = Browser::default();
    let seen = plain.ask(&server, "GET", &url, &tossed, "").await;
    assert_eq!(seen.status(), 200);
    let principal = &server.test.principal;
    let Who::Token(token) = &principal.who else {
        panic!("a token was shown");
    };
    let revoked = server.test.host.revoke_token(&principal.org, token).await;
    assert!(revoked.unwrap());
    let away = browser.get(&server, &url).await;
    assert_eq!(away.status(), 303);
}

#[tokio::test]
async fn a_login_leads_nowhere_but_to_a_sprite() {
    let (server, host) = served().await;
    let token = server.test.token.clone();
    let login = format!("http://{}/login", server.addr);
    let state = "0".repeat(64);
    let mut browser = Browser::default();
    for query in [
        String::new(),
        "?host=evil.example.com&path=/&state=".to_owned() + &state,
        format!("?host={}&path=/&state={state}", server.addr),
        format!("?host={host}&path=/&state=short"),
        format!("?host={host}@evil.example.com&path=/&state={state}"),
        format!("?host=evil.example.com%2F.{host}&path=/&state={state}"),
    ] {
        let url = format!("{login}{query}");
        assert_eq!(browser.get(&server, &url).await.status(), 400, "{url}");
        let posted = browser.submit(&server, &url, &token).await;
        assert_eq!(posted.status(), 400, "{url}");
    }
    // The host's text is not believed: what the sprite's URL is, we know. Neither is the path.
    let url = format!(
        "{login}?host={}:99&path=//evil.example.com&state={state}",
        host.split(':').next().unwrap()
    );
    let back = place(&browser.submit(&server, &url, &token).await);
    assert!(
        back.starts_with(&format!("http://{host}/.sprite-auth?code=")),
        "{back}"
    );
    // What is in a page stands there as text.
    let url = format!("{login}?host={host}&path=/%22%3E%3Cscript%3E&state={state}");
    let form = page(&browser.get(&server, &url).await);
    assert!(!form.contains("<script"), "{form}");
}

/// A page of somebody else logs nobody in: not with its own token, not with the browser's help.
#[tokio::test]
async fn a_form_of_another_page_is_refused() {
    let (server, host) = served().await;
    let mut browser = Browser::default();
    let login = place(&browser.get(&server, &format!("http://{host}/")).await);
    let body = format!("token={}", server.test.token.replace('/', "%2F"));
    for origin in [
        String::new(),
        "Origin: null\r\n".to_owned(),
        format!("Origin: http://{host}\r\n"),
        "Origin: http://evil.example.com\r\n".to_owned(),
        format!(
            "Origin: http://{}\r\nSec-Fetch-Site: cross-site\r\n",
            server.addr
        ),
    ] {
        let answer = browser.ask(&server, "POST", &login, &origin, &body).await;
        assert_eq!(answer.status(), 403, "{origin}");
    }
}

/// Another organisation's token opens nothing, and tells nothing.
#[tokio::test]
async fn a_foreign_token_finds_no_sprite() {
    let (server, host) = served().await;
    let slug = "other".parse().unwrap();
    let foreign = server.test.host.create_token(&slug, "test").await.unwrap();
    let mut pages = Vec::new();
    for host in [&host, &host.replacen("s-", "t-", 1)] {
        let mut browser = Browser::default();
        let login = place(&browser.get(&server, &format!("http://{host}/")).await);
        let answer = browser.submit(&server, &login, &foreign).await;
        assert_eq!(answer.status(), 404);
        let page = page(&answer);
        let (_, message) = page.split_once("role=\"alert\">").unwrap();
        pages.push(message.split_once('<').unwrap().0.to_owned());
    }
    assert_eq!(pages[0], pages[1]);
}

/// A sprite sets its own cookies and none of ours, whether it is private or public.
#[tokio::test]
async fn a_sprite_neither_reads_nor_sets_our_cookies() {
    let (server, host) = served().await;
    let _program = Program::answering(&server, 8080, |head| {
        format!(
            "HTTP/1.1 200 OK\r\nset-cookie: sprite-url=evil\r\nset-cookie: a=1\r\n\
             set-cookie: __Host-sprite-url-login=x\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        )
    })
    .await;
    make_public(&server, "s").await;
    let mut browser = Browser::default();
    browser
        .cookies
        .insert((host.clone(), "sprite-url".to_owned()), "secret".to_owned());
    browser
        .cookies
        .insert((host.clone(), "b".to_owned()), "2".to_owned());
    let answer = browser
        .get(&server, &format!("http://{host}/.sprite-auth?code=x"))
        .await;
    assert_eq!(answer.head.all("set-cookie"), ["a=1"]);
    let seen = page(&answer);
    // What is public has no path of ours.
    assert!(seen.starts_with("GET /.sprite-auth?code=x "), "{seen}");
    assert!(seen.contains("\r\ncookie: b=2\r\n"), "{seen}");
    let change = json!({"url_settings": {"auth": "sprite"}}).to_string();
    let request = server.request("PUT", "/v1/sprites/s").body(change);
    assert_eq!(request.send().await.status(), 200);
    let away = browser.get(&server, &format!("http://{host}/")).await;
    assert_eq!(away.status(), 303);
}

/// A login goes to the API's listener and comes back to the one of URLs.
#[tokio::test]
async fn a_login_ends_on_another_listener_than_it_began_on() {
    let (server, host) = served().await;
    let urls = server.listen_for_urls().await;
    let mut browser = Browser::default();
    let login = place(&browser.get(&server, &format!("http://{host}/")).await);
    let token = server.test.token.clone();
    let back = place(&browser.submit(&server, &login, &token).await);
    let state = browser.cookie(&host, "sprite-url-login").unwrap();
    let (_, path) = split(&back);
    let mut tcp = tokio::net::TcpStream::connect(urls).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nCookie: sprite-url-login={state}\r\n\r\n"
    );
    tokio::io::AsyncWriteExt::write_all(&mut tcp, request.as_bytes())
        .await
        .unwrap();
    let head = read_head(&mut tokio::io::BufReader::new(tcp)).await;
    assert_eq!((head.status, head.header("location")), (303, Some("/")));
}
