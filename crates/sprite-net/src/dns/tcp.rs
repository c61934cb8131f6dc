//! Questions by TCP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::upstream::{read_frame, write_frame};

/// Connections of one machine. More wait in the listener's queue.
pub(super) const MOST_CONNECTIONS: usize = 16;
/// Listeners' queues are bounded by the kernel; a connection without a question, or a machine that does not
/// take its answer, has this long. Source: RFC 7766 §6.2.3 ("a few seconds").
const IDLE: Duration = Duration::from_secs(10);
/// `accept` fails again at once when the process has no file left; then it waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`. Connections are closed then.
pub(super) async fn serve(listener: TcpListener, relay: Relay, stop: CancellationToken) {
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
                let relay = relay.clone();
                connections.spawn(async move {
                    if let Err(error) = talk(stream, &relay).await {
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
async fn talk(mut stream: TcpStream, relay: &Relay) -> io::Result<()> {
    loop {
        let message = match timeout(IDLE, read_frame(&mut stream)).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            message => message?,
        };
        let upstream = &relay.upstream;
        let answer = relay.door.answer(&message, |query| upstream.by_tcp(query));
        let Some(answer) = answer.await else {
            return Ok(());
        };
        timeout(IDLE, write_frame(&mut stream, &answer)).await??;
    }
}
