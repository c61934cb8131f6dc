//! Behaviour reference §1.1 to §1.3: sprites over REST.

use futures_util::future::join_all;
use serde_json::json;

use crate::setup::Server;
use crate::setup::socket::Event;

/// §1.3, §1.14: 201, and the superset of what clients read.
#[tokio::test]
async fn create_answers_201_with_everything_that_clients_read() {
    let server = Server::start().await;
    let body = json!({"name": "my-sprite", "labels": ["prod"], "environment": {"K": "V"},
        "url_settings": {"auth": "public", "private_access": "org_users"},
        "config": {"cpus": 2, "ram_mb": 512, "storage_gb": 10, "region": "ord"},
        "wait_for_capacity": true, "runtime": "dev", "unknown": {"ignored": [1]}});
    let answer = server.post("/v1/sprites", &body.to_string()).await;
    assert_eq!(answer.status(), 201);
    let sprite = answer.json();
    assert!(sprite["id"].as_str().unwrap().starts_with("sprite-"));
    let org = server.test.principal.org.to_string();
    let url = format!(
        "http://my-sprite-{org}.sprites.localhost:{}",
        server.addr.port()
    );
    assert_eq!(sprite["url"], url);
    assert_eq!(
        sprite["url_settings"],
        json!({"auth": "public", "private_access": "org_users"})
    );
    assert_eq!(sprite["organization"], "personal");
    assert_eq!(sprite["org_slug"], "personal");
    assert_eq!(sprite["labels"], json!(["prod"]));
    assert_eq!(sprite["environment"], json!({"K": "V"}));
    assert_eq!(
        sprite["config"],
        json!({
            "cpus": 2, "ram_mb": 512, "storage_gb": 10,
            "idle_timeout": "server", "connections": "open", "api_access": false,
        })
    );
    assert!(["cold", "warm", "running"].contains(&sprite["status"].as_str().unwrap()));
    assert!(sprite["isolation"].is_string() && sprite["driver"].is_string());
    for key in ["created_at", "updated_at"] {
        let text = sprite[key].as_str().unwrap();
        assert!(
            text.ends_with('Z') && text.len() == "2026-01-13T10:30:00.123456Z".len(),
            "{text}"
        );
    }
    let shown = server.get("/v1/sprites/my-sprite").await;
    assert_eq!((shown.status(), &shown.json()["id"]), (200, &sprite["id"]));
}

/// §1.1: a JSON body without its Content-Type is a JSON body; §1.2: the known text.
#[tokio::test]
async fn bodies_are_json_whatever_their_content_type() {
    let server = Server::start().await;
    for (kind, name) in [
        ("text/plain", "a"),
        ("application/x-www-form-urlencoded", "b"),
    ] {
        let request = server
            .request("POST", "/v1/sprites")
            .header("Content-Type", kind);
        assert_eq!(
            request
                .body(format!(r#"{{"name":"{name}"}}"#))
                .send()
                .await
                .status(),
            201
        );
    }
    let nameless = server.post("/v1/sprites", "{}").await;
    assert_eq!(
        (nameless.status(), nameless.error().as_str()),
        (400, "name is required")
    );
    assert_eq!(nameless.json()["errors"], json!(["name is required"]));
}

/// Bad input: each with its clear error, and nothing changed.
#[tokio::test]
async fn bad_bodies_are_refused_and_change_nothing() {
    let server = Server::start().await;
    for (body, word) in [
        ("", "JSON"),
        ("not json", "JSON"),
        ("[]", "JSON"),
        (r#"{"name":5}"#, "JSON"),
        (r#"{"name":"UPPER"}"#, "name"),
        (r#"{"name":"-a"}"#, "name"),
        (r#"{"name":"a","labels":["x,y"]}"#, "label"),
        (
            r#"{"name":"a","url_settings":{"auth":"open"}}"#,
            "url_settings.auth",
        ),
        (r#"{"name":"a","config":{"cpus":0}}"#, "cpus"),
        (r#"{"name":"a","config":{"ram_mb":1}}"#, "ram_mb"),
        (
            r#"{"name":"a","config":{"storage_gb":99999}}"#,
            "storage_gb",
        ),
        (r#"{"name":"a","environment":{"A=B":"c"}}"#, "environment"),
    ] {
        let answer = server.post("/v1/sprites", body).await;
        assert_eq!(answer.status(), 400, "{body}");
        answer.error();
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "{body}: {message}");
    }
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(57));
    assert_eq!(server.post("/v1/sprites", &long).await.status(), 400);
    let huge = format!(r#"{{"name":"a","x":"{}"}}"#, "a".repeat(1 << 20));
    let answer = server.post("/v1/sprites", &huge).await;
    assert_eq!(
        (answer.status(), answer.error().as_str()),
        (413, "too_large")
    );
    assert_eq!(server.get("/v1/sprites").await.json()["sprites"], json!([]));
}

/// A disk on which the image does not fit is the caller's to change: told with the least size, and nothing is kept.
#[tokio::test]
async fn a_disk_too_small_for_the_image_is_refused_with_the_least_size() {
    let server = Server::start().await;
    server.test.disks.need(3);
    let body = |gb: u32| format!(r#"{{"name":"a","config":{{"storage_gb":{gb}}}}}"#);
    let answer = server.post("/v1/sprites", &body(2)).await;
    assert_eq!(answer.status(), 400);
    let refused = answer.json();
    let rule = "config: storage_gb is 2, it must be at least 3 to hold the base image";
    assert_eq!(refused["errors"], json!([rule]));
    assert!(
        refused["hint"].as_str().unwrap().contains("3 GB"),
        "{refused}"
    );
    assert_eq!(server.get("/v1/sprites").await.json()["sprites"], json!([]));
    // The name is free, and the least size is enough.
    assert_eq!(server.post("/v1/sprites", &body(3)).await.status(), 201);
}

/// §12 (create by name): two creates of one name at once yield one sprite and a clear answer.
#[tokio::test]
async fn a_name_is_taken_once() {
    let server = Server::start().await;
    let creates = (0..8).map(|_| server.post("/v1/sprites", r#"{"name":"one"}"#));
    let mut statuses: Vec<u16> = join_all(creates)
        .await
        .iter()
        .map(|answer| answer.status())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    let again = server.post("/v1/sprites", r#"{"name":"one"}"#).await;
    assert_eq!(again.error(), "name_taken");
}

/// §12 (absence is definitive), §1.2: JSON with `not_found`.
#[tokio::test]
async fn what_is_not_there_is_404() {
    let server = Server::with_sprite().await;
    for path in [
        "/v1/sprites/none",
        "/v1/sprites/NOT%20A%20NAME",
        "/v1/sprites/none/check",
        "/v1/nothing",
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status(), answer.error().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    let delete = server.request("DELETE", "/v1/sprites/none").send().await;
    assert_eq!(
        (delete.status(), delete.error().as_str()),
        (404, "not_found")
    );
    let method = server.request("PATCH", "/v1/sprites/s").send().await;
    assert_eq!(
        (method.status(), method.error().as_str()),
        (405, "method_not_allowed")
    );
    let encoding = server.get("/v1/sprites/%ff").await;
    assert_eq!(encoding.status(), 400);
    encoding.error();
}

/// §1.3: keyset paging by name, counts at the top and in `org`; §12 (honest listing).
#[tokio::test]
async fn lists_come_in_pages_that_end_explicitly() {
    let server = Server::start().await;
    for name in ["a1", "a2", "a3", "b1", "b2"] {
        server.test.create(name).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/sprites?max_results=2".to_owned();
    loop {
        let page = server.get(&path).await.json();
        let sprites = page["sprites"].as_array().unwrap();
        names.extend(
            sprites
                .iter()
                .map(|sprite| sprite["name"].as_str().unwrap().to_owned()),
        );
        let total = |key: &str| page[key].as_u64().unwrap();
        assert_eq!(total("running") + total("warm") + total("cold"), 5);
        assert_eq!(page["org"]["cold"], page["cold"]);
        assert_eq!(page["name"], "personal");
        match page["next_continuation_token"].as_str() {
            Some(token) => {
                assert_eq!(page["has_more"], true);
                path = format!("/v1/sprites?max_results=2&continuation_token={token}");
            }
            None => {
                assert_eq!(page["has_more"], false);
                break;
            }
        }
    }
    assert_eq!(names, ["a1", "a2", "a3", "b1", "b2"]);
    let prefixed = server.get("/v1/sprites?prefix=b").await.json();
    assert_eq!(prefixed["sprites"].as_array().unwrap().len(), 2);
    for wrong in [
        "max_results=0",
        "max_results=x",
        "continuation_token=%21",
        "prefix=%",
    ] {
        assert_eq!(
            server.get(&format!("/v1/sprites?{wrong}")).await.status(),
            400,
            "{wrong}"
        );
    }
}

/// §1.3: a partial update answers 200 with the object.
#[tokio::test]
async fn updates_change_what_they_name() {
    let server = Server::with_sprite().await;
    let put = async |body: &str| {
        let answer = server
            .request("PUT", "/v1/sprites/s")
            .body(body)
            .send()
            .await;
        assert_eq!(answer.status(), 200, "{body}");
        answer.json()
    };
    let labelled = put(r#"{"labels":["a","b"]}"#).await;
    assert_eq!(labelled["labels"], json!(["a", "b"]));
    let public = put(r#"{"url_settings":{"auth":"public"}}"#).await;
    assert_eq!(public["labels"], json!(["a", "b"]));
    assert_eq!(
        public["url_settings"],
        json!({"auth": "public", "private_access": "admins"})
    );
    assert_eq!(put(r#"{"clear_labels":true}"#).await["labels"], json!([]));
    let wrong = server
        .request("PUT", "/v1/sprites/s")
        .body(r#"{"labels":["a",""]}"#)
        .send()
        .await;
    assert_eq!(wrong.status(), 400);
    let missing = server
        .request("PUT", "/v1/sprites/none")
        .body("{}")
        .send()
        .await;
    assert_eq!(missing.status(), 404);
}

/// §1.3, §1.14: exactly 204; a name that is used again gets a new id.
#[tokio::test]
async fn deleted_sprites_are_gone_and_their_names_free() {
    let server = Server::start().await;
    let first = server.post("/v1/sprites", r#"{"name":"s"}"#).await.json();
    let deleted = server.request("DELETE", "/v1/sprites/s").send().await;
    assert_eq!((deleted.status(), deleted.body().len()), (204, 0));
    assert_eq!(server.get("/v1/sprites/s").await.status(), 404);
    let second = server.post("/v1/sprites", r#"{"name":"s"}"#).await.json();
    assert_ne!(first["id"], second["id"]);
}

/// §1.3: restart, check and upgrade.
#[tokio::test]
async fn upkeep_answers_in_the_known_shapes() {
    let server = Server::with_sprite().await;
    let restarted = server.post("/v1/sprites/s/restart", "").await;
    assert_eq!(restarted.status(), 200);
    assert_eq!(restarted.json()["sprite_name"], "s");
    assert!(
        restarted.json()["machine_id"]
            .as_str()
            .unwrap()
            .starts_with("machine-")
    );
    let checked = server.get("/v1/sprites/s/check").await.json();
    assert_eq!(checked["status"], "healthy");
    assert!(checked["checked_at"].is_string() && checked["elapsed"].is_string());
    for restarted in [false, true, false] {
        let upgraded = server.post("/v1/sprites/s/upgrade", "").await;
        assert_eq!(upgraded.status(), 200);
        assert_eq!(upgraded.json()["restarted"], restarted);
        if !restarted {
            server.test.driver.renew();
        }
    }
    assert_eq!(
        server
            .post("/v1/sprites/s/upgrade", r#"{"version":"9.9"}"#)
            .await
            .status(),
        400
    );
}

/// §1.1: every answer tells the version, errors too; §1.3: the organisation.
#[tokio::test]
async fn every_answer_tells_the_version() {
    let server = Server::with_sprite().await;
    for path in [
        "/healthz",
        "/openapi.json",
        "/v1/organization",
        "/v1/sprites/none",
        "/nowhere",
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            answer.head.header("sprite-version"),
            Some("0.0.1-rc48"),
            "{path}"
        );
    }
    let organization = server.get("/v1/organization").await.json();
    assert_eq!(organization["organization"]["slug"], "personal");
    assert_eq!(organization["organization"]["sprites"], 1);
}

/// The document names every route that there is, and no other.
#[tokio::test]
async fn the_document_tells_what_is_there() {
    let server = Server::with_sprite().await;
    let document = server.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/sprites/{name}/exec/{session}/kill"));
    assert_eq!(
        document["servers"][0]["url"],
        format!("http://{}", server.addr)
    );
    for (path, methods) in paths {
        let real = path
            .replace("{name}", "none")
            .replace("{session}", "1")
            .replace("{slug}", "personal");
        for method in methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| key.as_str() != "parameters")
        {
            let answer = server
                .request(&method.to_uppercase(), &real)
                .body("{}")
                .send()
                .await;
            assert_ne!(answer.status(), 405, "{method} {path}");
            if answer.status() == 404 {
                let message = answer.json()["message"].as_str().unwrap().to_owned();
                assert!(!message.contains("route"), "{method} {path}");
            }
        }
    }
}

/// §4.1: whoever asks for sleep gets it, whoever is connected; connections stay open and wake the sprite.
#[tokio::test]
async fn a_sprite_is_put_to_sleep_and_its_sessions_go_on() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws("/v1/sprites/s/exec?cmd=cat&stdin=true").await;
    ws.session().await;
    for _ in 0..3 {
        assert_eq!(server.post("/v1/sprites/s/sleep", "").await.status(), 204);
        let info = server.get("/v1/sprites/s").await.json();
        assert_eq!(info["status"], "warm");
        ws.stdin("line\n").await;
        assert_eq!(ws.next().await, Event::Stdout("line\n".into()));
    }
    let task = r#"{"name":"build","expire":"1h"}"#;
    assert_eq!(server.post("/v1/sprites/s/tasks", task).await.status(), 201);
    let refused = server.post("/v1/sprites/s/sleep", "").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.json()["hint"].as_str().unwrap().contains("tasks"));
}

/// A sprite's own word for when it is idle is checked, kept and told.
#[tokio::test]
async fn when_a_sprite_is_idle_is_a_setting() {
    let server = Server::with_sprite().await;
    let config = server.get("/v1/sprites/s").await.json()["config"].clone();
    assert_eq!(
        (&config["idle_timeout"], &config["connections"]),
        (&json!("server"), &json!("open"))
    );
    for (wanted, told) in [
        ("10m", "600s"),
        ("1500ms", "1500ms"),
        ("never", "never"),
        ("server", "server"),
    ] {
        let body = json!({"config": {"idle_timeout": wanted, "connections": "traffic"}});
        let changed = server
            .request("PUT", "/v1/sprites/s")
            .body(body.to_string());
        let changed = changed.send().await;
        assert_eq!(changed.status(), 200, "{wanted}");
        let config = server.get("/v1/sprites/s").await.json()["config"].clone();
        assert_eq!(config["idle_timeout"], told);
        assert_eq!(config["connections"], "traffic");
    }
    for wrong in [
        json!({"idle_timeout": "soon"}),
        json!({"idle_timeout": "10ms"}),
        json!({"connections": "some"}),
    ] {
        let body = json!({"config": wrong}).to_string();
        let refused = server.request("PUT", "/v1/sprites/s").body(body.clone());
        assert_eq!(refused.send().await.status(), 400, "{body}");
    }
    let body = r#"{"name":"quick","config":{"idle_timeout":"5s","connections":"traffic"}}"#;
    let created = server.post("/v1/sprites", body).await.json();
    assert_eq!(created["config"]["idle_timeout"], "5s");
    assert_eq!(created["config"]["connections"], "traffic");
}
