//! A server whose exec streams are played by a script.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../fake/mod.rs"]
mod fake;

use std::future::Future;

pub use fake::{Conn, Fake, Seen};
use futures_util::{SinkExt, StreamExt};
use sprite_client::{Client, Sprite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub type Socket = WebSocketStream<TcpStream>;

/// A server whose every exec stream is played by `script`, after `session_info`.
pub async fn playing<F, T>(tty: bool, script: F) -> (Fake, Sprite)
where
    F: Fn(Socket) -> T + Send + Sync + Clone + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let fake = Fake::start(move |seen: Seen, conn: Conn| {
        let script = script.clone();
        async move {
            if !seen.is_websocket() {
                return conn.reply(200, "{}").await;
            }
            let mut socket = conn.websocket(&seen).await;
            let hello = format!(
                r#"{{"type":"session_info","session_id":"77","command":"x","created":1,"cols":0,"rows":0,"is_owner":true,"tty":{tty}}}"#
            );
            send(&mut socket, Message::text(hello)).await;
            script(socket).await;
            None
        }
    })
    .await;
    let sprite = Client::new(&fake.url(), "t")
        .expect("a usable address")
        .sprite("a");
    (fake, sprite)
}

pub async fn send(socket: &mut Socket, message: Message) {
    socket.send(message).await.expect("the client reads");
}

pub async fn binary(socket: &mut Socket, bytes: &[u8]) {
    send(socket, Message::binary(bytes.to_vec())).await;
}

/// Waits for the client's Close; fails when the connection breaks instead.
pub async fn closed_by_client(socket: &mut Socket) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(_))) => return,
            Some(Ok(_)) => {}
            other => panic!("no clean close: {other:?}"),
        }
    }
}
