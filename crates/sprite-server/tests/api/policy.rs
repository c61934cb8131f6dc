//! Behaviour reference §1.11: policies.

use serde_json::json;
use sprite_types::Egress;

use crate::setup::Server;

const NETWORK: &str = "/v1/sprites/s/policy/network";
const PRIVILEGES: &str = "/v1/sprites/s/policy/privileges";
const RESOURCES: &str = "/v1/sprites/s/policy/resources";

/// §1.14: 204, which every SDK wants; and what was accepted holds.
#[tokio::test]
async fn a_network_policy_is_kept_and_tells_what_holds() {
    let server = Server::with_sprite().await;
    let open = server.get(NETWORK).await;
    assert_eq!(open.status(), 200);
    assert_eq!(open.json(), json!({"rules": [], "enforcement": "open"}));
    let rules = json!([{"include": "defaults"}, {"domain": "github.com", "action": "allow"},
        {"domain": "*.example.org", "action": "allow"}, {"domain": "*", "action": "deny"}]);
    let body = json!({"rules": rules, "unknown": 1}).to_string();
    assert_eq!(server.post(NETWORK, &body).await.status(), 204);
    let shown = server.get(NETWORK).await.json();
    assert_eq!(shown, json!({"rules": rules, "enforcement": "closed"}));
    let sprite = server.get("/v1/sprites/s").await.json();
    let id = sprite["id"].as_str().unwrap().parse().unwrap();
    drop(server.test.host.awake(id).await.unwrap());
    let machine = server.test.driver.machine_of(id).unwrap();
    assert_eq!(machine.walls().0, Egress::Closed);
    let body = json!({"rules": []}).to_string();
    assert_eq!(server.post(NETWORK, &body).await.status(), 204);
    assert_eq!(server.get(NETWORK).await.json()["enforcement"], "open");
    assert_eq!(machine.walls().0, Egress::Open);
}

/// §1.11: what is wrong is told, and changes nothing.
#[tokio::test]
async fn a_network_policy_that_is_wrong_changes_nothing() {
    let server = Server::with_sprite().await;
    let kept = json!({"rules": [{"domain": "a.org", "action": "deny"}]});
    assert_eq!(server.post(NETWORK, &kept.to_string()).await.status(), 204);
    let rule = json!({"domain": "a.org", "action": "allow"});
    let many = json!({"rules": vec![rule; 257]}).to_string();
    for wrong in [
        "{}",
        r#"{"rules":null}"#,
        r#"{"rules":{}}"#,
        r#"{"rules":[{"domain":"a.org","action":"perhaps"}]}"#,
        r#"{"rules":[{"domain":"1.2.3.4","action":"allow"}]}"#,
        r#"{"rules":[{"domain":"a.org"}]}"#,
        r#"{"rules":[{"include":"everything"}]}"#,
        "[]",
        "",
        &many,
    ] {
        let answer = server.post(NETWORK, wrong).await;
        assert_eq!(answer.status(), 400, "{wrong:.60}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(server.get(NETWORK).await.json()["rules"], kept["rules"]);
    let missing = server.post(NETWORK, "{}").await.json();
    assert_eq!(missing["errors"], json!(["rules is required"]));
}

#[tokio::test]
async fn privileges_are_kept_deleted_and_refused_where_the_driver_has_none() {
    let server = Server::with_sprite().await;
    let usual = json!({"profile": "", "devices": [], "noNewPrivileges": false});
    assert_eq!(server.get(PRIVILEGES).await.json(), usual);
    let minimal = json!({"profile": "minimal", "devices": ["/dev/null"], "noNewPrivileges": true});
    let answer = server.post(PRIVILEGES, &minimal.to_string()).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(server.get(PRIVILEGES).await.json(), minimal);
    for (wanted, status) in [
        (json!({"profile": "privileged"}), 501),
        (json!({"devices": ["/dev/kvm"]}), 501),
        (json!({"profile": "root"}), 400),
        (json!({"devices": vec!["/dev/null"; 65]}), 400),
        (json!({"noNewPrivileges": "yes"}), 400),
    ] {
        let refused = server.post(PRIVILEGES, &wanted.to_string()).await;
        assert_eq!(refused.status(), status, "{wanted:.60}");
        if status == 501 {
            assert!(refused.json()["hint"].is_string(), "{wanted}");
        }
    }
    assert_eq!(server.get(PRIVILEGES).await.json(), minimal);
    let deleted = server.request("DELETE", PRIVILEGES).send().await;
    assert_eq!(deleted.status(), 204);
    assert_eq!(server.get(PRIVILEGES).await.json(), usual);
}

#[tokio::test]
async fn limits_are_kept_deleted_and_tell_what_holds() {
    let server = Server::with_sprite().await;
    let id = server.get("/v1/sprites/s").await.json()["id"].clone();
    let id = id.as_str().unwrap().parse().unwrap();
    drop(server.test.host.awake(id).await.unwrap());
    let limits = json!({"memory": {"limit_mb": 1024, "autoscale": true}, "cpu": {"limit": 1}});
    let answer = server.post(RESOURCES, &limits.to_string()).await;
    assert_eq!(answer.status(), 204);
    let shown = server.get(RESOURCES).await.json();
    assert_eq!(shown["memory"], limits["memory"]);
    assert_eq!(shown["cpu"], limits["cpu"]);
    assert_eq!(shown["applied"]["memory_mb"], 1024);
    assert_eq!(shown["pending"], json!([]));
    for wrong in [
        json!({"memory": {"limit_mb": 1}}),
        json!({"memory": {}}),
        json!({"cpu": {"limit": 65}}),
        json!({"pids": {"limit": -1}}),
    ] {
        let refused = server.post(RESOURCES, &wrong.to_string()).await;
        assert_eq!(refused.status(), 400, "{wrong}");
    }
    let deleted = server.request("DELETE", RESOURCES).send().await;
    assert_eq!(deleted.status(), 204);
    let shown = server.get(RESOURCES).await.json();
    assert_eq!(shown.get("memory"), None);
}

#[tokio::test]
async fn policies_are_of_sprites_that_exist() {
    let server = Server::with_sprite().await;
    for (method, kind) in [
        ("GET", "network"),
        ("POST", "network"),
        ("DELETE", "privileges"),
        ("POST", "resources"),
    ] {
        let path = format!("/v1/sprites/none/policy/{kind}");
        let answer = server.request(method, &path).body("{}").send().await;
        assert_eq!(answer.status(), 404, "{method} {kind}");
    }
    let answer = server.request("DELETE", NETWORK).send().await;
    assert_eq!(answer.status(), 405, "it is opened by having no rules");
}
