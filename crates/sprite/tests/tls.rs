//! Servers behind TLS.

mod harness;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use harness::{Fake, Home, TOKEN, nothing_else, running};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Puts TLS before a server; returns its port and its certificate.
async fn behind_tls(fake: &Fake) -> (u16, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let inner: SocketAddr = fake
        .url()
        .strip_prefix("http://")
        .expect("plain")
        .parse()
        .expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away.
                let Ok(mut outer) = acceptor.accept(outer).await else {
                    return;
                };
                let mut inner = TcpStream::connect(inner).await.expect("the server runs");
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn calls_and_commands_go_through_tls_to_a_trusted_server_only() {
    let fake = running(nothing_else).await;
    let (port, certificate) = behind_tls(&fake).await;
    let mut home = Home::of(&fake);
    fs::write(home.path("ca.pem"), certificate).expect("written");
    home.set("SPRITE_TOKEN", TOKEN);
    home.set("SPRITE_URL", format!("https://localhost:{port}"));

    let untrusted = home.run(&["exec", "-s", "a", "--", "echo", "x"]).await;
    assert_eq!(untrusted.code, 1, "{untrusted:?}");
    assert!(
        untrusted
            .stderr
            .contains("cannot connect to https://localhost"),
        "{untrusted:?}"
    );
    home.set("SSL_CERT_FILE", home.path("ca.pem").display().to_string());
    home.set("SPRITE_URL", format!("https://127.0.0.1:{port}"));
    let other_name = home.run(&["exec", "-s", "a", "--", "echo", "x"]).await;
    assert_eq!(other_name.code, 1, "{other_name:?}");
    assert!(
        fake.seen().is_empty(),
        "the token went to a server that is not trusted"
    );

    home.set("SPRITE_URL", format!("https://localhost:{port}"));
    let ran = home
        .run_with(&["exec", "-s", "a", "--", "cat"], &[b'x'; 300_000])
        .await;
    assert_eq!((ran.code, ran.stdout.len()), (0, 300_000), "{}", ran.stderr);
}
