//! Questions by TCP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::message::{Received, failure, receive};
use super::upstream::{Upstream, read_frame, write_frame};

/// Connections of one machine. More wait in the listener's queue.
pub(super) const MOST_CONNECTIONS: usize = 16;
/// Listeners' queues are bounded by the kernel; a connection without a question, or a machine that does not
/// take its answer, has this long. Source: RFC 7766 §6.2.3 ("a few seconds").
const IDLE: Duration = Duration::from_secs(10);
/// `accept` fails again at once when the process has no file left; then it waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`. Connections are closed then.
pub(super) async fn serve(listener: TcpListener, upstream: Arc<Upstream>, stop: CancellationToken) {
    let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&free)
                .acquire_owned()
                .await
                .expect("it is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let upstream = Arc::clone(&upstream);
                connections.spawn(async move {
                    if let Err(error) = talk(stream, &upstream).await {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept a DNS connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One question after the other, until the machine closes, is idle, or sends what is no question.
async fn talk(mut stream: TcpStream, upstream: &Upstream) -> io::Result<()> {
    loop {
        let message = match timeout(IDLE, read_frame(&mut stream)).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            message => message?,
        };
        let answer = match receive(&message) {
            Received::Query(query) => upstream.by_tcp(query).await,
            Received::Refused(reason) => failure(&message, reason),
            Received::Ignored => return Ok(()),
        };
        timeout(IDLE, write_frame(&mut stream, &answer)).await??;
    }
}
