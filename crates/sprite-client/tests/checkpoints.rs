//! Checkpoints: what is sent, and how answers and streams are understood.

mod fake;

use fake::{Conn, Fake, Seen};
use serde_json::json;
use sprite_client::{CheckpointEventKind, Client, Error, Sprite};

const TOKEN: &str = "org/orgid/tokid/secret";

fn sprite(fake: &Fake) -> Sprite {
    let client = Client::new(&fake.url(), TOKEN).expect("a usable address");
    client.sprite("a")
}

/// Answers with these lines, and ends as a stream does.
async fn lines(mut conn: Conn, lines: &[&str]) -> Option<Conn> {
    conn.chunked().await;
    for line in lines {
        conn.chunk(format!("{line}\n").as_bytes()).await;
    }
    conn.raw(b"0\r\n\r\n").await;
    Some(conn)
}

async fn server() -> Fake {
    Fake::start(|seen: Seen, conn| async move {
        match (seen.method.as_str(), seen.path()) {
            ("POST", "/v1/sprites/a/checkpoint") => {
                lines(
                    conn,
                    &[
                        r#"{"type":"info","data":"Creating checkpoint...","time":"2026-01-05T10:30:00Z"}"#,
                        r#"{"type":"info","data":"  ID: v2","time":"2026-01-05T10:30:00Z"}"#,
                        r#"{"type":"stdout","data":"of another version"}"#,
                        r#"{"type":"complete","data":"Checkpoint v2 created","time":"2026-01-05T10:30:01Z"}"#,
                    ],
                )
                .await
            }
            ("GET", "/v1/sprites/a/checkpoints") => {
                let all = json!([
                    {"id": "Current", "create_time": "2026-01-05T10:31:00Z", "source_id": "v2", "comment": ""},
                    {"id": "v2", "create_time": "2026-01-05T10:30:01Z", "source_id": "v1", "comment": "two",
                     "is_auto": false, "health": "", "history": ["v1"], "size": 7},
                    {"id": "v1", "comment": null, "history": null},
                ]);
                conn.reply(200, &all.to_string()).await
            }
            ("GET", "/v1/sprites/a/checkpoints/v1") => conn.reply(200, r#"{"id":"v1"}"#).await,
            ("DELETE", "/v1/sprites/a/checkpoints/v1") => conn.reply(204, "").await,
            ("DELETE", "/v1/sprites/a/checkpoints/v2") => {
                let body = r#"{"error":"conflict","message":"the sprite stands on checkpoint v2"}"#;
                conn.reply(409, body).await
            }
            ("POST", "/v1/sprites/a/checkpoints/auto-1/restore") => {
                lines(
                    conn,
                    &[
                        r#"{"type":"info","data":"Restoring to checkpoint auto-1..."}"#,
                        r#"{"type":"complete","data":"Restored to auto-1"}"#,
                    ],
                )
                .await
            }
            ("POST", "/v1/sprites/a/checkpoints/v1/restore") => {
                lines(
                    conn,
                    &[
                        r#"{"type":"info","data":"Restoring to checkpoint v1..."}"#,
                        r#"{"type":"error","error":"there is \u001b[2Jno room"}"#,
                    ],
                )
                .await
            }
            // The server goes away in the middle.
            ("POST", "/v1/sprites/a/checkpoints/v2/restore") => {
                lines(conn, &[r#"{"type":"info","data":"Restoring to checkpoint v2..."}"#]).await
            }
            _ => conn.reply(404, r#"{"error":"not_found","message":"no such checkpoint"}"#).await,
        }
    })
    .await
}

#[tokio::test]
async fn a_checkpoint_is_made_and_told_of() {
    let fake = server().await;
    let sprite = sprite(&fake);
    let mut events = sprite.create_checkpoint(Some("two")).await.expect("begun");
    let first = events.next().await.expect("a line").expect("not the end");
    let data = "Creating checkpoint...".to_owned();
    assert_eq!(first.what, CheckpointEventKind::Info { data });
    assert!(first.time.is_some_and(|time| time.time().is_some()));
    assert_eq!(events.done().await.expect("done"), "v2");
    assert_eq!(events.next().await.expect("the end"), None);
    assert_eq!(events.done().await.expect("asked again"), "v2");

    let mut bare = sprite.create_checkpoint(None).await.expect("begun");
    let mut kinds = Vec::new();
    while let Some(event) = bare.next().await.expect("a line") {
        kinds.push(event.what);
    }
    assert_eq!(kinds[2], CheckpointEventKind::Unknown);
    assert_eq!(kinds.len(), 4);
    let seen = fake.seen();
    assert_eq!(seen[0].json(), json!({"comment": "two"}));
    assert_eq!(seen[1].json(), json!({}));
}

#[tokio::test]
async fn checkpoints_are_listed_shown_and_deleted() {
    let fake = server().await;
    let sprite = sprite(&fake);
    let all = sprite.checkpoints().send().await.expect("a list");
    let ids: Vec<_> = all
        .iter()
        .map(|it| (it.id.as_str(), it.is_current()))
        .collect();
    assert_eq!(ids, [("Current", true), ("v2", false), ("v1", false)]);
    assert_eq!(all[0].source_id, "v2");
    assert_eq!((all[1].comment.as_str(), all[1].is_auto), ("two", false));
    assert_eq!(all[1].history, ["v1"]);
    assert_eq!(all[1].other["size"], 7);
    assert_eq!((all[2].comment.as_str(), all[2].history.len()), ("", 0));
    let list = sprite.checkpoints().with_automatic().history("v/1");
    list.send().await.expect("a list");

    assert_eq!(sprite.checkpoint_info("v1").await.expect("one").id, "v1");
    let unknown = sprite.checkpoint_info("v9").await.expect_err("none");
    assert!(unknown.is_not_found(), "{unknown:?}");
    sprite.delete_checkpoint("v1").await.expect("deleted");
    let stands = sprite.delete_checkpoint("v2").await.expect_err("needed");
    assert_eq!(stands.refusal().map(|refusal| refusal.status), Some(409));
    let nameless = sprite.delete_checkpoint("..").await.expect_err("no id");
    assert!(matches!(nameless, Error::Unwritable { .. }), "{nameless:?}");
    assert_eq!(
        fake.seen()[1].target,
        "/v1/sprites/a/checkpoints?includeAuto=true&history=v%2F1"
    );
}

#[tokio::test]
async fn a_restore_ends_well_or_is_an_error() {
    let fake = server().await;
    let sprite = sprite(&fake);
    let mut events = sprite.restore("auto-1").await.expect("begun");
    assert_eq!(events.done().await.expect("done"), "auto-1");

    let mut events = sprite.restore("v1").await.expect("begun");
    while events.next().await.expect("a line").is_some() {}
    match events.done().await {
        Err(Error::Failed { message }) => assert_eq!(message, "there is [2Jno room"),
        other => panic!("{other:?}"),
    }

    let mut events = sprite.restore("v2").await.expect("begun");
    let cut = events.done().await.expect_err("it was cut off");
    assert!(matches!(cut, Error::Interrupted { .. }), "{cut:?}");

    let unknown = sprite.restore("v9").await.expect_err("none");
    assert!(unknown.is_not_found(), "{unknown:?}");
}
