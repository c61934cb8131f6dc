//! Behaviour reference §1.1: tokens.

use crate::setup::Server;

const ROUTES: [(&str, &str); 15] = [
    ("GET", ""),
    ("PUT", ""),
    ("DELETE", ""),
    ("GET", "/check"),
    ("POST", "/restart"),
    ("POST", "/sleep"),
    ("POST", "/upgrade"),
    ("GET", "/exec"),
    ("HEAD", "/exec"),
    ("POST", "/exec?cmd=true"),
    ("GET", "/exec/1"),
    ("POST", "/exec/1/kill"),
    ("GET", "/control"),
    ("GET", "/fs/read"),
    ("GET", "/services"),
];

#[tokio::test]
async fn every_route_but_three_wants_a_token() {
    let server = Server::with_sprite().await;
    for (method, below) in ROUTES {
        let path = format!("/v1/sprites/s{below}");
        let answer = server.request(method, &path).token(None).send().await;
        assert_eq!(answer.status(), 401, "{method} {path}");
        assert_eq!(answer.head.header("www-authenticate"), Some("Bearer"));
        if method != "HEAD" {
            assert_eq!(answer.error(), "unauthorized");
        }
    }
    for path in ["/v1/sprites", "/v1/organization", "/nowhere"] {
        assert_eq!(
            server
                .request("GET", path)
                .token(None)
                .send()
                .await
                .status(),
            401,
            "{path}"
        );
    }
    for path in ["/healthz", "/openapi.json", "/streams.json"] {
        assert_eq!(
            server
                .request("GET", path)
                .token(None)
                .send()
                .await
                .status(),
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused() {
    let server = Server::with_sprite().await;
    let cut = server.test.token[..server.test.token.len() - 1].to_owned();
    for token in ["x", "personal/abcdef/abcdefgh/secret", &cut, ""] {
        let answer = server
            .request("GET", "/v1/sprites")
            .token(Some(token))
            .send()
            .await;
        assert_eq!(
            (answer.status(), answer.error().as_str()),
            (401, "unauthorized"),
            "{token}"
        );
    }
    for header in ["Basic abc", "Bearer", "FlyV1 fm2_abc"] {
        let request = server
            .request("GET", "/v1/sprites")
            .token(None)
            .header("Authorization", header);
        assert_eq!(request.send().await.status(), 401, "{header}");
    }
    let fly = server
        .request("GET", "/v1/sprites")
        .token(None)
        .header("Authorization", "FlyV1 fm2_abc");
    assert!(
        fly.send().await.json()["hint"]
            .as_str()
            .unwrap()
            .contains("token")
    );
    let lower = format!("bearer {}", server.test.token);
    let request = server
        .request("GET", "/v1/sprites")
        .token(None)
        .header("Authorization", &lower);
    assert_eq!(request.send().await.status(), 200);
}

/// A sprite of another organisation does not exist: the same answer as for no sprite, for every operation.
#[tokio::test]
async fn other_organisations_see_nothing() {
    let server = Server::with_sprite().await;
    let foreign = server.foreign_token().await;
    for (method, below) in ROUTES {
        let path = format!("/v1/sprites/s{below}");
        let body = if method == "PUT" { "{}" } else { "" };
        let answer = server
            .request(method, &path)
            .token(Some(&foreign))
            .body(body)
            .send()
            .await;
        assert_eq!(answer.status(), 404, "{method} {path}");
    }
    let list = server
        .request("GET", "/v1/sprites")
        .token(Some(&foreign))
        .send()
        .await;
    assert_eq!(list.json()["sprites"].as_array().unwrap().len(), 0);
    let same = server
        .request("POST", "/v1/sprites")
        .token(Some(&foreign))
        .body(r#"{"name":"s"}"#);
    assert_eq!(
        same.send().await.status(),
        201,
        "names are unique per organisation"
    );
    assert_eq!(server.get("/v1/sprites/s").await.status(), 200);
}

/// §1.1: minting, by a token of the same organisation; Fly's macaroons are refused clearly.
#[tokio::test]
async fn tokens_make_tokens_of_their_own_organisation() {
    let server = Server::with_sprite().await;
    let path = "/v1/organizations/personal/tokens";
    let made = server.post(path, r#"{"description":"ci"}"#).await;
    assert_eq!(made.status(), 201);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("personal/") && token.split('/').count() == 4);
    let used = server
        .request("GET", "/v1/sprites/s")
        .token(Some(&token))
        .send()
        .await;
    assert_eq!(used.status(), 200);
    let foreign = server.foreign_token().await;
    let stolen = server
        .request("POST", path)
        .token(Some(&foreign))
        .send()
        .await;
    assert_eq!(
        (stolen.status(), stolen.error().as_str()),
        (404, "not_found")
    );
    let fly = server
        .request("POST", path)
        .token(None)
        .header("Authorization", "FlyV1 fm2_x");
    assert_eq!(fly.send().await.status(), 401);
    assert_eq!(
        server
            .post("/v1/organizations/others/tokens", "")
            .await
            .status(),
        404
    );
}
