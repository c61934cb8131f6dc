//! The network policy as a program inside reads it.

use serde_json::{Value, json};
use sprite_client::{NetworkPolicy, NetworkRule, Sprite};

use crate::harness::{Server, ready, text};

const SHOWN: &str = "/.sprite/policy/network.json";

async fn shown(sprite: &Sprite) -> Option<Value> {
    let said = text(sprite, &format!("cat {SHOWN} 2>/dev/null || true")).await;
    (!said.is_empty()).then(|| serde_json::from_str(&said).expect("JSON"))
}

/// A policy that is set while it runs is shown at once, as whoever set it sees it, and by every later machine.
#[tokio::test]
async fn the_policy_shown_inside_follows_the_one_that_holds() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut sprite = server.sprite("s").await;
    assert_eq!(shown(&sprite).await, None);
    let rules = |domain: &str| NetworkPolicy {
        rules: vec![NetworkRule::deny(domain)],
    };
    for domain in ["*", "example.org"] {
        sprite.set_network_policy(&rules(domain)).await.unwrap();
        let expected = json!({
            "rules": [{"domain": domain, "action": "deny"}],
            "enforcement": "closed",
        });
        assert_eq!(shown(&sprite).await, Some(expected));
    }
    let before = shown(&sprite).await;
    assert_ne!(
        crate::failing(&sprite, &format!("sudo rm {SHOWN}")).await.0,
        0
    );
    // The machine lives on under another server; then one begins anew.
    server.kill();
    server.restart();
    sprite = server.client().sprite("s");
    assert_eq!(shown(&sprite).await, before);
    server.stop();
    server.restart();
    sprite = server.client().sprite("s");
    assert_eq!(shown(&sprite).await, before);
    sprite
        .set_network_policy(&NetworkPolicy { rules: Vec::new() })
        .await
        .unwrap();
    assert_eq!(shown(&sprite).await, None);
    server.finish();
}
