//! Policies in force: a closed sprite stays closed, whatever happens to it or to its server; sessions become no more
//! than they may; limits hold. That no packet of any kind gets out of what is closed is tried where there is an
//! outside to look from: in the tests of `sprite-net`.

use sprite_client::{
    CountLimit, MemoryLimit, NetworkPolicy, NetworkRule, PrivilegesPolicy, ResourcesPolicy, Sprite,
};

use crate::attack::shell;
use crate::harness::{Server, ready};

/// The code of the gateway's answer to a question for a name, and whether a connection to the outside is refused at
/// once. An address that nobody answers for, whether or not this computer is connected to anything.
const WAYS: &str = r#"bash -c "
exec 3<>/dev/tcp/10.0.0.2/53
printf '\0\023\007\007\001\0\0\001\0\0\0\0\0\0\001x\0\0\001\0\001' >&3
head -c 6 <&3 | od -An -tu1 -j5
timeout 3 bash -c 'exec 4<>/dev/tcp/203.0.113.1/443' 2>&1 | grep -o 'Connection refused' | head -1
""#;

/// REFUSED. Source: RFC 1035 §4.1.1.
const CLOSED: &str = "5 Connection refused";

async fn told(sprite: &Sprite, script: &str) -> String {
    let said = shell(sprite, script).await;
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_closed_sprite_stays_closed() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("closed").await;
    let neighbour = server.sprite("open").await;
    let rules = vec![NetworkRule::include("defaults"), NetworkRule::deny("*")];
    let closed = sprite.set_network_policy(&NetworkPolicy { rules }).await;
    closed.unwrap();
    assert_eq!(told(&sprite, WAYS).await, CLOSED, "at once");
    assert_ne!(told(&neighbour, WAYS).await, CLOSED, "the other is not");
    sprite.restart().await.unwrap();
    assert_eq!(told(&sprite, WAYS).await, CLOSED, "in its next machine");
    server.kill();
    server.restart();
    let sprite = server.client().sprite("closed");
    assert_eq!(told(&sprite, WAYS).await, CLOSED, "after the server's end");
    let shown = sprite.network_policy().await.unwrap();
    assert_eq!(shown.enforcement.as_deref(), Some("closed"));
    let opened = sprite.set_network_policy(&NetworkPolicy::open()).await;
    opened.unwrap();
    assert_ne!(told(&sprite, WAYS).await, CLOSED, "it can be opened again");
    server.finish();
}

#[tokio::test]
async fn confined_sessions_get_no_rights() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("confined").await;
    let read = "sudo -n id -u 2>/dev/null || echo no; grep -c 'NoNewPrivs:.1' /proc/self/status; \
                grep -c 'CapBnd:.0000000000000000' /proc/self/status || true";
    assert_eq!(told(&sprite, read).await, "0 0 0");
    for (profile, no_new_privileges, expected) in [
        ("", true, "no 1 0"),
        ("minimal", false, "no 1 1"),
        ("standard", false, "0 0 0"),
    ] {
        let policy = PrivilegesPolicy {
            profile: profile.to_owned(),
            devices: Vec::new(),
            no_new_privileges,
        };
        sprite.set_privileges_policy(&policy).await.unwrap();
        let seen = told(&sprite, read).await;
        assert_eq!(seen, expected, "{profile:?} {no_new_privileges}");
    }
    server.finish();
}

#[tokio::test]
async fn a_lower_limit_holds_in_a_machine_that_runs() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("limited").await;
    let policy = ResourcesPolicy {
        memory: Some(MemoryLimit {
            limit_mb: 256,
            autoscale: true,
        }),
        cpu: None,
        pids: Some(CountLimit { limit: 64 }),
    };
    assert_eq!(told(&sprite, "echo up").await, "up");
    sprite.set_resources_policy(&policy).await.unwrap();
    let shown = sprite.resources_policy().await.unwrap();
    assert_eq!(shown.policy, policy);
    assert!(shown.pending.is_empty(), "{shown:?}");
    // All of it lies in one process, which the kernel ends.
    let eat = "head -c 400M /dev/zero | tail -c 400M | wc -c";
    assert_ne!(told(&sprite, eat).await, "419430400");
    // A shell that cannot fork ends.
    let many =
        "sh -c 'for i in $(seq 100); do sleep 20 & done; echo all' 2>/dev/null || echo refused";
    assert_eq!(told(&sprite, many).await, "refused");
    server.finish();
}
