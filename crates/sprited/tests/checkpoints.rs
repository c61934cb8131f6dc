//! Checkpoints of real disks: what was acknowledged before one is in it, in the order in which it was written.
//! Source: behaviour reference §1.8, §4.2.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{Sprite, Status, Stdio};

/// Emulated computers are slow; nothing waits for it when all is well.
const LONG: Duration = Duration::from_secs(120);

async fn keep(sprite: &Sprite) -> String {
    let mut made = sprite.create_checkpoint(None).await.unwrap();
    made.done().await.unwrap()
}

async fn restore(sprite: &Sprite, id: &str) {
    let mut restored = sprite.restore(id).await.unwrap();
    tokio::time::timeout(LONG, restored.done())
        .await
        .expect("it ends in time")
        .unwrap();
}

#[tokio::test]
async fn a_checkpoint_brings_back_what_was_there_and_nothing_else() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("keeper").await;
    // Nobody asks for it to be on the disk.
    let before = "echo one > state; mkdir -p deep/er; echo kept > deep/er/file; ln -s state link; chmod 600 state; \
                  head -c 3000000 /dev/urandom > blob; sha256sum < blob";
    let sum = text(&sprite, before).await;
    let id = keep(&sprite).await;
    assert_eq!(id, "v1");
    text(
        &sprite,
        "echo two > state; chmod 644 state; rm -r deep blob; echo new > new",
    )
    .await;
    let running = sprite
        .command("sh")
        .args(["-c", "echo up; sleep 1000"])
        .stdout(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    restore(&sprite, "v1").await;
    // What ran has ended, and never well.
    let ended = tokio::time::timeout(LONG, running.wait_with_output())
        .await
        .expect("it ends");
    assert!(
        ended.map_or(true, |output| !output.status.success()),
        "a session that was cut off is no success"
    );
    let after = "cat state deep/er/file link; stat -c %a state; sha256sum < blob; ls new 2>&1 | grep -c 'No such'";
    let seen = text(&sprite, after).await;
    assert_eq!(seen, format!("one\nkept\none\n600\n{sum}\n1"));

    // What was replaced can be had back too.
    let all = sprite.checkpoints().with_automatic().send().await.unwrap();
    let ids: Vec<&str> = all.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["Current", "auto-1", "v1"]);
    restore(&sprite, "auto-1").await;
    assert_eq!(text(&sprite, "cat state new").await, "two\nnew");
    assert_eq!(keep(&sprite).await, "v2");
    sprite.delete_checkpoint("v1").await.unwrap();
    server.finish();
}

#[tokio::test]
async fn a_sprite_that_sleeps_is_kept_asleep_and_restored() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("sleeper").await;
    text(&sprite, "echo one > state").await;
    sprite.sleep().await.unwrap();
    assert_eq!(keep(&sprite).await, "v1");
    assert_eq!(sprite.info().await.unwrap().status, Status::Warm);
    text(&sprite, "echo two > state; sync").await;
    sprite.sleep().await.unwrap();
    restore(&sprite, "v1").await;
    assert_eq!(text(&sprite, "cat state").await, "one");
    server.finish();
}

/// Two files are appended to in turn, each line durable before the next and told when it is: in every checkpoint are
/// all lines that were told before it began, whole, in order, and none that is not followed up.
#[tokio::test]
async fn checkpoints_beside_a_writer_are_exact_prefixes_of_what_it_wrote() {
    const WRITER: &str = r#"
        use IO::Handle; $| = 1;
        open(my $a, ">>", "a") or die; open(my $b, ">>", "b") or die;
        for (my $i = 1; ; $i++) {
            for my $f ($a, $b) { print $f sprintf("%08d\n", $i); $f->flush; $f->sync or die }
            print "$i\n";
        }"#;
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("ledger").await;
    let mut writer = sprite
        .command("perl")
        .args(["-e", WRITER])
        .stdout(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdout = writer.stdout.take().unwrap();
    let (told, last_told) = tokio::sync::watch::channel(0_u64);
    let reader = tokio::spawn(async move {
        let mut rest = String::new();
        while let Ok(Some(chunk)) = stdout.chunk().await {
            rest.push_str(&String::from_utf8_lossy(&chunk));
            if let Some(end) = rest.rfind('\n') {
                let last = rest[..end].rsplit('\n').next().unwrap();
                told.send_replace(last.parse().unwrap());
                rest.drain(..=end);
            }
        }
    });
    let rounds: usize = if driver() == "container" { 6 } else { 2 };
    let mut bounds = Vec::new();
    let mut last_told = last_told;
    for _ in 0..rounds {
        let before = *last_told.borrow();
        last_told
            .wait_for(|told| *told >= before + 7)
            .await
            .unwrap();
        let before = *last_told.borrow();
        let id = keep(&sprite).await;
        // It writes on: nothing was stopped.
        last_told.wait_for(|told| *told > before).await.unwrap();
        bounds.push((id, before, *last_told.borrow()));
    }
    for (id, before, after) in bounds.into_iter().rev() {
        restore(&sprite, &id).await;
        let check =
            r#"for f in a b; do n=$(wc -l < $f); seq -f %08g 1 $n | cmp - $f && echo $n; done"#;
        let counts = text(&sprite, check).await;
        let counts: Vec<u64> = counts.lines().map(|n| n.parse().unwrap()).collect();
        let [a, b] = counts[..] else {
            panic!("{id}: {counts:?}");
        };
        assert!(a == b || a == b + 1, "{id}: {a} and {b}");
        assert!(
            b >= before && b <= after + 1,
            "{id}: {b} of {before}..={after}"
        );
    }
    reader.await.unwrap();
    server.finish();
}

/// A new sprite with the same disk: what was written in the one is there, what is written then is each one's own.
#[tokio::test]
async fn a_fork_has_what_its_source_had_and_a_life_of_its_own() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let source = server.sprite("source").await;
    text(&source, "echo one > state").await;
    assert_eq!(keep(&source).await, "v1");
    text(
        &source,
        "echo two > state; head -c 2000000 /dev/urandom > blob",
    )
    .await;
    let sum = text(&source, "sha256sum < blob").await;
    let from = async |name: &str, of: serde_json::Value| {
        let body = serde_json::json!({ "name": name, "from": of });
        let request = server.client().raw("POST", "/v1/sprites");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{name}");
        server.client().sprite(name)
    };
    let fork = from("fork", serde_json::json!({ "sprite": "source" })).await;
    assert_eq!(text(&fork, "cat state; hostname").await, "two\nfork");
    assert_eq!(text(&fork, "sha256sum < blob").await, sum);
    text(&fork, "echo three > state; rm blob; sync").await;
    assert_eq!(text(&source, "cat state").await, "two");
    assert_eq!(text(&source, "sha256sum < blob").await, sum);
    let of = serde_json::json!({ "sprite": "source", "checkpoint": "v1" });
    let old = from("old", of).await;
    assert_eq!(
        text(&old, "cat state; ls blob 2>&1 | grep -c 'No such'").await,
        "one\n1"
    );
    source.destroy().await.unwrap();
    assert_eq!(text(&fork, "cat state").await, "three");
    assert_eq!(text(&old, "cat state").await, "one");
    server.finish();
}

/// A server killed anywhere in it: the checkpoint is whole or not there, the restore is done.
#[tokio::test]
async fn a_killed_server_leaves_whole_checkpoints_and_finishes_restores() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("killed").await;
    text(&sprite, "echo 0 > state").await;
    let base = keep(&sprite).await;
    let rounds: u64 = if driver() == "container" { 6 } else { 2 };
    for round in 1..=rounds {
        let client = server.client();
        let sprite = client.sprite("killed");
        text(&sprite, &format!("echo {round} > state; sync state")).await;
        let (asked, id) = (sprite.clone(), base.clone());
        let work = tokio::spawn(async move {
            if round % 2 == 0 {
                let mut made = asked.create_checkpoint(None).await?;
                made.done().await.map(Some)
            } else {
                let mut restored = asked.restore(&id).await?;
                restored.done().await.map(|_| None)
            }
        });
        tokio::time::sleep(Duration::from_millis(round * 7 % 40)).await;
        server.kill();
        let told = work.await.unwrap();
        server.restart();
        let sprite = server.client().sprite("killed");
        let all = sprite.checkpoints().with_automatic().send().await.unwrap();
        if let Ok(Some(id)) = &told {
            assert!(all.iter().any(|it| it.id == *id), "{id} was acknowledged");
        }
        let allowed = if round % 2 == 0 {
            vec![round.to_string()]
        } else if told.is_ok() {
            vec!["0".to_owned()]
        } else {
            // Not begun yet, or carried out.
            vec![round.to_string(), "0".to_owned()]
        };
        eventually(LONG, async || {
            match harness::patiently(&sprite, "cat state").await {
                Ok(output) if output.status.success() => Ok(output),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let state = text(&sprite, "cat state").await;
        assert!(allowed.contains(&state), "{state}, not {allowed:?}");
    }
    server.finish();
}
