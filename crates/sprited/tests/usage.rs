//! What sprites have used, on real machines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, eventually, ready, text};
use sprite_client::{Sprite, Status, Usage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// What the sprite has used; the times of its states are its life.
async fn usage(sprite: &Sprite) -> Usage {
    let usage = sprite.usage().await.unwrap();
    let since = usage.since.time().unwrap();
    let life = (usage.until.time().unwrap() - since).as_seconds_f64();
    let all = usage.running_seconds + usage.warm_seconds + usage.cold_seconds;
    assert!((all - life).abs() < 1e-3, "{usage:?}");
    usage
}

#[tokio::test]
async fn a_sprite_that_computed_and_slept_is_counted_over_a_killed_server() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&["--metrics-listen", "127.0.0.1:0"]);
    let sprite = server.sprite("busy").await;
    let began = usage(&sprite).await;
    // A second of a processor, as the sprite itself counts it; and a mebibyte that no other file shares.
    let script = "head -c 1000000 /dev/urandom > /tmp/own; sync /tmp/own
        while read -r stat < /proc/$$/stat; set -- $stat; test $((${14} + ${15})) -lt 100; do :; done; echo done";
    assert_eq!(text(&sprite, script).await, "done");
    let running = usage(&sprite).await;
    assert_eq!(running.status, Status::Running);
    let cpu = running.cpu_seconds - began.cpu_seconds;
    assert!((0.95..60.0).contains(&cpu), "{cpu}");
    assert!(running.running_seconds > began.running_seconds);
    assert!(running.memory_bytes.is_some_and(|bytes| bytes > 0));
    assert!(running.memory_gib_seconds > 0.0);
    assert!(running.disk_unique_bytes >= 1_000_000, "{running:?}");
    sprite.sleep().await.unwrap();
    let asleep = usage(&sprite).await;
    assert_eq!(asleep.status, Status::Warm);
    assert!(asleep.cpu_seconds >= running.cpu_seconds);
    assert_eq!(asleep.memory_bytes, None);
    let metrics = metrics(&server).await;
    let line = "sprited_sleeps_total{outcome=\"done\"} 1";
    assert!(metrics.contains(line), "{metrics}");

    server.kill();
    server.restart();
    let sprite = server.client().sprite("busy");
    let adopted = usage(&sprite).await;
    // Nothing is forgotten, and nothing counted twice: it only slept.
    assert_eq!(adopted.status, Status::Warm);
    assert_eq!(adopted.cpu_seconds.to_bits(), asleep.cpu_seconds.to_bits());
    let ran = (asleep.running_seconds, adopted.running_seconds);
    assert_eq!(ran.0.to_bits(), ran.1.to_bits());
    assert!(adopted.warm_seconds > asleep.warm_seconds);

    // While it runs, too.
    assert_eq!(text(&sprite, "echo awake").await, "awake");
    let awake = usage(&sprite).await;
    server.kill();
    server.restart();
    let sprite = server.client().sprite("busy");
    let adopted = eventually(SOON, async || {
        let usage = usage(&sprite).await;
        match usage.memory_bytes {
            Some(_) => Ok(usage),
            None => Err(format!("{usage:?}")),
        }
    })
    .await;
    let more = adopted.cpu_seconds - awake.cpu_seconds;
    assert!((0.0..30.0).contains(&more), "{more}");
    assert!(adopted.running_seconds > awake.running_seconds);
    let seen = sprite.info().await.unwrap();
    assert_eq!(seen.status, Status::Running);
    server.finish();
}

async fn metrics(server: &Server) -> String {
    let url = server.metrics.clone().expect("told at the start");
    let address = url.strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(
        said.starts_with("HTTP/1.0 200 ") || said.starts_with("HTTP/1.1 200 "),
        "{said}"
    );
    said
}
