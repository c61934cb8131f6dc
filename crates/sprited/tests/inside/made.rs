//! Sprites that a sprite makes.

use std::time::Duration;

use serde_json::json;
use sprite_client::Stdio;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::harness::{Server, ready, text};
use crate::{failing, json};

const LONG: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_sprite_makes_runs_and_deletes_one_and_sees_no_other() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let (parent, _other) = (server.sprite("parent").await, server.sprite("other").await);
    let make = "sprite-env curl -d '{\"name\":\"child\"}' /v1/orgs/test/sprites";
    let refused = json(&parent, &format!("{make} || true")).await;
    assert_eq!(refused["error"], "forbidden");
    parent.update().api_access(true).send().await.unwrap();
    let orgs = json(&parent, "sprite-env curl /v1/orgs").await;
    assert_eq!(orgs["orgs"][0]["slug"], "test");
    let made = json(&parent, make).await;
    assert_eq!(made["made_by"], parent.info().await.unwrap().id.unwrap());
    let child = server.client().sprite("child");
    server.boots(&child).await;
    assert_eq!(
        child.info().await.unwrap().other["made_by"],
        made["made_by"]
    );
    let run = "sprite-env curl -X POST '/v1/orgs/test/sprites/child/exec?cmd=sh&cmd=-c&cmd=echo+$((6*7))'";
    let said = text(&parent, &format!("{run} | tr -dc '[:print:]'")).await;
    assert_eq!(said, "42");
    let put =
        "sprite-env curl -X PUT -d hello '/v1/orgs/test/sprites/child/fs/write?path=/tmp/told'";
    text(&parent, put).await;
    assert_eq!(text(&child, "cat /tmp/told").await, "hello");
    for path in [
        "other",
        "parent",
        "other/fs/read?path=/etc/hostname",
        "other/policy/network",
    ] {
        let said = json(
            &parent,
            &format!("sprite-env curl '/v1/orgs/test/sprites/{path}' || true"),
        )
        .await;
        assert_eq!(said["message"], "sprite not found", "{path}");
    }
    let list = json(&parent, "sprite-env curl /v1/orgs/test/sprites").await;
    assert_eq!(list["sprites"].as_array().map(Vec::len), Some(1));
    // The child may not, and nothing of a token is anywhere.
    let (code, said) = failing(&child, "sprite-env curl /v1/orgs").await;
    assert_eq!(code, 1, "{said}");
    let secret = server.token().rsplit('/').next().unwrap().to_owned();
    let search =
        format!("sudo grep -rlasF {secret} /.sprite /proc/[0-9]*/environ /home /etc /tmp | wc -l");
    assert_eq!(text(&parent, &search).await, "0");
    text(
        &parent,
        "sprite-env curl -X DELETE /v1/orgs/test/sprites/child",
    )
    .await;
    assert!(child.info().await.is_err_and(|error| error.is_not_found()));
    server.finish();
}

/// Off is off at once: what is under way inside ends, and the sprites that were made stay.
#[tokio::test]
async fn the_switch_goes_off_for_what_is_under_way_too() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let parent = server.sprite("parent").await;
    parent.update().api_access(true).send().await.unwrap();
    let path = "/v1/orgs/test/sprites";
    text(
        &parent,
        &format!("sprite-env curl -d '{{\"name\":\"child\"}}' {path}"),
    )
    .await;
    server.boots(&server.client().sprite("child")).await;
    // A list without an end.
    let watch = format!("sprite-env curl -H 'Accept: application/x-ndjson' {path}");
    let mut watching = parent
        .command("sh")
        .args(["-c", &watch])
        .stdin(Stdio::Null)
        .spawn()
        .await
        .unwrap();
    let mut first = [0];
    let told = timeout(
        LONG,
        watching.stdout.as_mut().unwrap().read_exact(&mut first),
    )
    .await;
    told.unwrap().unwrap();
    parent.update().api_access(false).send().await.unwrap();
    let ended = timeout(LONG, watching.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(
        !ended.status.success(),
        "a list that is cut off must not look whole"
    );
    let refused = json(&parent, &format!("sprite-env curl {path} || true")).await;
    assert_eq!(refused["error"], json!("forbidden"));
    assert_eq!(
        text(&server.client().sprite("child"), "echo here").await,
        "here"
    );
    server.finish();
}
