//! Questions by UDP.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::upstream::LARGEST_DATAGRAM;

/// Questions of one machine that wait for an answer. More are not taken from the socket, whose small buffer
/// then overflows: what a flood loses is its own.
pub(super) const MOST_IN_FLIGHT: usize = 32;

/// Serves until `stop`. Questions in flight are given up then.
pub(super) async fn serve(socket: UdpSocket, relay: Relay, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let free = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; LARGEST_DATAGRAM + 1];
    loop {
        let next = async {
            let permit = Arc::clone(&free)
                .acquire_owned()
                .await
                .expect("it is never closed");
            (permit, socket.recv_from(&mut buffer).await)
        };
        let (permit, received) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        while questions.try_join_next().is_some() {}
        match received {
            // Larger than any question: not DNS.
            Ok((length, _)) if length > LARGEST_DATAGRAM => {}
            Ok((length, from)) => {
                let (bytes, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
                let relay = relay.clone();
                questions.spawn(async move {
                    answer(&bytes, from, &socket, &relay).await;
                    drop(permit);
                });
            }
            // An ICMP error about an answer of ours: the machine closed its socket.
            Err(error) => tracing::debug!(%error, "receive a question"),
        }
    }
}

async fn answer(bytes: &[u8], from: SocketAddr, socket: &UdpSocket, relay: &Relay) {
    let upstream = &relay.upstream;
    let answer = relay.door.answer(bytes, |query| upstream.by_udp(query));
    let Some(answer) = answer.await else {
        return;
    };
    if let Err(error) = socket.send_to(&answer, from).await {
        tracing::debug!(%error, "send an answer");
    }
}
