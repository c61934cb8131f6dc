//! How long slots take. Printed, not judged: `cargo nextest run -p sprite-net --run-ignored only --no-capture --test timing`.

mod support;

use std::time::{Duration, Instant};

use support::*;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "prints times; run it alone"]
fn times() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let (mut makes, mut releases) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let start = Instant::now();
            let slot = network.acquire().await.expect("slot");
            makes.push(start.elapsed());
            let start = Instant::now();
            network.release(slot.id).await.expect("released");
            releases.push(start.elapsed());
        }
        eprintln!("slot made, p50: {:?}", median(makes));
        eprintln!("slot released, p50: {:?}", median(releases));

        let mut acquiring = tokio::task::JoinSet::new();
        let start = Instant::now();
        for _ in 0..50 {
            let network = network.clone();
            acquiring.spawn(async move { network.acquire().await.expect("slot") });
        }
        let slots = acquiring.join_all().await;
        eprintln!("50 slots made at once: {:?}", start.elapsed());
        let start = Instant::now();
        let mut releasing = tokio::task::JoinSet::new();
        for slot in slots {
            let network = network.clone();
            releasing.spawn(async move { network.release(slot.id).await.expect("released") });
        }
        releasing.join_all().await;
        eprintln!("50 slots released at once: {:?}", start.elapsed());
        network.close().await.expect("closed");

        let (network, _) = open(50).await;
        eventually("the pool fills", || match network.ready() {
            50 => Ok(()),
            n => Err(n),
        })
        .await;
        let mut takes = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            network.acquire().await.expect("slot");
            takes.push(start.elapsed());
        }
        eprintln!("slot from the pool, p50: {:?}", median(takes));
    });
}
