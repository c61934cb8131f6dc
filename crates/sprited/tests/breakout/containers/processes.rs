//! Processes of ours on their way in.

use std::time::Duration;

use crate::attack::{As, begin, bring, judge};
use crate::harness::{Server, ready};

/// A process of ours becomes the user's program inside the environment: until then nobody can look into it.
#[tokio::test]
async fn a_starting_process_cannot_be_looked_into() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("tracer").await;
    bring(&sprite).await;
    let tracer = begin(&sprite, As::Root, &["trace-starts", "4000"]).await;
    for _ in 0..40 {
        let mut child = sprite.command("true").spawn().await.unwrap();
        // It may have been stopped by the tracer; whatever happens to it, it is no matter of ours.
        let _ = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
    }
    let report = tracer.wait_with_output().await.unwrap();
    judge("trace-starts", &report);
    server.finish();
}
