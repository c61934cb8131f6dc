//! Connections to what listens in a machine of processes.

mod support;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};

use sprite_net::{Network, SlotId, SpareSockets};
use support::*;
use tokio::io::AsyncReadExt;

async fn ask(
    network: &Network,
    slot: SlotId,
    spare: &SpareSockets,
    port: u16,
) -> std::io::Result<String> {
    let mut said = String::new();
    let mut stream = network.connect(slot, spare, port).await?;
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

#[test]
fn what_listens_in_a_machine_is_reached_there_and_nowhere_else() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let neighbour = network.acquire().await.expect("slot");
        let four = serve_tcp(&slot.guest_netns, (Ipv4Addr::LOCALHOST, 0)).await;
        let six = serve_tcp(&slot.guest_netns, (Ipv6Addr::LOCALHOST, 0)).await;
        let (here, there) = (SpareSockets::default(), SpareSockets::default());
        // One after the other and at once, from one thread that goes to and fro.
        for _ in 0..3 {
            let said = tokio::join!(
                ask(&network, slot.id, &here, four.port()),
                ask(&network, slot.id, &here, six.port()),
                ask(&network, neighbour.id, &there, four.port()),
            );
            assert_eq!(said.0.expect("it listens"), "127.0.0.1");
            assert_eq!(said.1.expect("it listens"), "::1");
            let refused = said.2.expect_err("nobody listens there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let told = refused.to_string();
            let address = format!("connect to 127.0.0.1:{}: ", four.port());
            assert!(told.starts_with(&address), "{told}");
        }
        network.close().await.expect("close");
    });
}

#[test]
fn a_slot_that_was_given_back_is_not_reached_and_nothing_of_it_stays() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let server = serve_tcp(&slot.guest_netns, (Ipv4Addr::LOCALHOST, 0)).await;
        let here = SpareSockets::default();
        let said = ask(&network, slot.id, &here, server.port()).await;
        assert_eq!(said.expect("it listens"), "127.0.0.1");
        here.clear();
        network.release(slot.id).await.expect("given back");
        ask(&network, slot.id, &here, server.port())
            .await
            .expect_err("there is none");
        // Whoever asked for another one gets one all the same.
        let next = network.acquire().await.expect("slot");
        ask(&network, next.id, &SpareSockets::default(), server.port())
            .await
            .expect_err("nobody listens there");
        network.release(next.id).await.expect("given back");
        network.close().await.expect("close");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}
