//! Domains of people's own lead to sprites, and to nothing of the server's.

use serde_json::{Value, json};
use sprite_server::{CustomDomains, ServeLimits};
use sprite_testkit::TestHost;

use super::login::{Browser, page, place};
use super::{Program, make_public};
use crate::setup::Server;

const DOMAIN: &str = "www.example.com";

async fn mapping() -> Server {
    let limits = ServeLimits::default();
    let server = Server::configured(TestHost::options(), limits, |config| {
        config.custom_domains = CustomDomains::On;
    })
    .await;
    server.test.create("s").await;
    server
}

/// Asks for a change of `s`'s domains; status and body.
async fn change(server: &Server, method: &str, domain: &str) -> (u16, Value) {
    change_of(server, "s", method, domain).await
}

async fn change_of(server: &Server, name: &str, method: &str, domain: &str) -> (u16, Value) {
    let path = format!("/v1/sprites/{name}/domains/{domain}");
    let answer = server.request(method, &path).send().await;
    let body = match answer.body().is_empty() {
        true => Value::Null,
        false => answer.json(),
    };
    (answer.status(), body)
}

#[tokio::test]
async fn a_domain_leads_to_the_sprite_until_it_is_let_go() {
    let server = mapping().await;
    let _program = Program::echo(&server, 8080).await;
    let before = server.url_get(DOMAIN, "/v1/sprites", "").await;
    assert!(before.whole().await.json()["sprites"].is_array());
    let (status, mapped) = change(&server, "PUT", "WWW.Example.com.").await;
    assert_eq!(
        (status, &mapped["domain"]),
        (200, &json!(DOMAIN)),
        "{mapped}"
    );
    assert_eq!(
        mapped["url"],
        format!("http://{DOMAIN}:{}", server.addr.port())
    );
    // Once more is the same.
    assert_eq!(change(&server, "PUT", DOMAIN).await, (200, mapped.clone()));
    assert_eq!(change(&server, "GET", DOMAIN).await, (200, mapped.clone()));
    let list = server.get("/v1/sprites/s/domains").await.json();
    assert_eq!(list, json!({ "domains": [mapped] }));
    for host in [DOMAIN, "www.example.com:7774", "WWW.EXAMPLE.COM."] {
        let answer = server.url_get(host, "/v1/organization", "").await;
        let seen = String::from_utf8(answer.whole().await.body()).unwrap();
        assert!(seen.starts_with("GET /v1/organization "), "{seen}");
        assert!(seen.contains(&format!("\r\nhost: {host}\r\n")), "{seen}");
        assert!(!seen.contains("authorization"), "{seen}");
    }
    // A private one is for those who may, here too.
    let stranger = server.url_ask(DOMAIN, "/", "").await.whole().await;
    assert_eq!(stranger.status(), 401);
    make_public(&server, "s").await;
    let answer = server.url_ask(DOMAIN, "/", "").await.whole().await;
    assert_eq!(answer.status(), 200);
    // Names below it are others.
    let below = server.url_ask("a.www.example.com", "/", "").await;
    assert_eq!(below.whole().await.status(), 401);
    assert_eq!(change(&server, "DELETE", DOMAIN).await.0, 204);
    assert_eq!(change(&server, "DELETE", DOMAIN).await.0, 404);
    assert_eq!(change(&server, "GET", DOMAIN).await.0, 404);
    let answer = server.url_get(DOMAIN, "/v1/sprites", "").await;
    assert!(answer.whole().await.json()["sprites"].is_array());
}

#[tokio::test]
async fn a_domain_is_one_sprites_and_is_free_when_that_is_gone() {
    let server = mapping().await;
    server.test.create("t").await;
    assert_eq!(change(&server, "PUT", DOMAIN).await.0, 200);
    let (status, taken) = change_of(&server, "t", "PUT", DOMAIN).await;
    assert_eq!((status, &taken["error"]), (409, &json!("conflict")));
    let text = taken.to_string();
    assert!(
        !text.contains("personal") && !text.contains("\"s\""),
        "{text}"
    );
    // Nobody lets go what is not theirs, nor sees it.
    assert_eq!(change_of(&server, "t", "DELETE", DOMAIN).await.0, 404);
    assert_eq!(change_of(&server, "t", "GET", DOMAIN).await.0, 404);
    let foreign = server.foreign_token().await;
    let path = format!("/v1/sprites/s/domains/{DOMAIN}");
    let other = server
        .request("DELETE", &path)
        .token(Some(&foreign))
        .send()
        .await;
    assert_eq!(other.status(), 404);
    let gone = server.request("DELETE", "/v1/sprites/s").send().await;
    assert_eq!(gone.status(), 204);
    assert_eq!(change_of(&server, "t", "PUT", DOMAIN).await.0, 200);
}

#[tokio::test]
async fn their_number_is_bounded() {
    let server = mapping().await;
    for n in 0..sprite_host::MOST_DOMAINS {
        let (status, body) = change(&server, "PUT", &format!("a{n}.example.com")).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(change(&server, "PUT", "one-more.example.com").await.0, 400);
    assert_eq!(change(&server, "PUT", "a0.example.com").await.0, 200);
}

#[tokio::test]
async fn what_is_no_domain_or_the_servers_own_is_refused() {
    let server = mapping().await;
    for bad in [
        "localhost",
        "127.0.0.1",
        "a.localhost",
        "s-x.sprites.localhost",
        "sprites.localhost",
        "a_b.example",
        "*.example.com",
        "example.com:80",
    ] {
        let (status, body) = change(&server, "PUT", bad).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
    let (status, body) = change(&server, "PUT", "b%C3%BCcher.example").await;
    assert_eq!(status, 400);
    assert!(body["hint"].as_str().unwrap().contains("xn--"), "{body}");
}

#[tokio::test]
async fn a_server_maps_none_unless_its_operator_wants_it() {
    let server = Server::with_sprite().await;
    let (status, body) = change(&server, "PUT", DOMAIN).await;
    assert_eq!((status, &body["error"]), (403, &json!("forbidden")));
    let hint = body["hint"].as_str().unwrap();
    assert!(hint.contains("--custom-domains on"), "{body}");
    // One that was mapped before leads nowhere.
    let sprite = server.get("/v1/sprites/s").await.json();
    let id = sprite["id"].as_str().unwrap().parse().unwrap();
    let domain = DOMAIN.parse().unwrap();
    server.test.host.map_domain(id, &domain).await.unwrap();
    let answer = server.url_get(DOMAIN, "/v1/sprites", "").await;
    assert!(answer.whole().await.json()["sprites"].is_array());
}

#[tokio::test]
async fn a_browser_logs_in_to_a_domain_and_is_known_there_alone() {
    let server = mapping().await;
    let _program = Program::echo(&server, 8080).await;
    let domain = format!("{DOMAIN}:{}", server.addr.port());
    assert_eq!(change(&server, "PUT", DOMAIN).await.0, 200);
    let mut browser = Browser::default();
    let url = format!("http://{domain}/a?b=c");
    let login = place(&browser.get(&server, &url).await);
    assert!(
        login.starts_with(&format!("http://{}/login?", server.addr)),
        "{login}"
    );
    let form = browser.get(&server, &login).await;
    let policy = form.head.header("content-security-policy").unwrap();
    assert!(
        policy.contains(&format!("form-action 'self' http://{domain}")),
        "{policy}"
    );
    let token = server.test.token.clone();
    let back = place(&browser.submit(&server, &login, &token).await);
    assert!(
        back.starts_with(&format!("http://{domain}/.sprite-auth?code=")),
        "{back}"
    );
    let known = browser.get(&server, &back).await;
    assert_eq!(place(&known), "/a?b=c");
    assert!(!known.head.all("set-cookie")[0].contains("Domain"));
    let seen = page(&browser.get(&server, &url).await);
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("cookie"), "{seen}");
    assert!(browser.cookie(&domain, "sprite-url").is_some());
    // The code is spent, and the page leads to no domain that leads to no sprite.
    assert_eq!(browser.get(&server, &back).await.status(), 403);
    let elsewhere = login.replace("www.example.com", "evil.example.com");
    assert_eq!(browser.get(&server, &elsewhere).await.status(), 400);
    // Mapped to another sprite, the cookie of the first is worth nothing there.
    assert_eq!(change(&server, "DELETE", DOMAIN).await.0, 204);
    server.test.create("t").await;
    assert_eq!(change_of(&server, "t", "PUT", DOMAIN).await.0, 200);
    assert_eq!(browser.get(&server, &url).await.status(), 303);
}
