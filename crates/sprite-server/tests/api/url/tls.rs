//! Sprites' URLs on a listener of their own, over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sprite_server::{
    Api, CustomDomains, Front, ServerConfig, SpriteUrls, Tls, UrlKey, UrlScheme, serve_tls,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Program, served};
use crate::setup::Server;

/// Writes a new certificate, and returns it.
fn certify(dir: &Path) -> CertificateDer<'static> {
    let names = vec!["*.sprites.localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// Another listener of the server, for URLs alone.
async fn listen(server: &Server, tls: Tls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = ServerConfig {
        public_base: "https://api.example.com".to_owned(),
        sprite_urls: SpriteUrls {
            scheme: UrlScheme::Https,
            domain: "sprites.localhost".to_owned(),
            port: Some(addr.port()),
            front: Front::Direct,
        },
        url_key: UrlKey::new([7; UrlKey::LEN]),
        custom_domains: CustomDomains::Off,
        url_requests: ServerConfig::URL_REQUESTS,
    };
    let router = Api::new(server.test.host.clone(), config).url_router();
    tokio::spawn(serve_tls(listener, tls, router, std::future::pending()));
    addr
}

async fn connect(
    addr: SocketAddr,
    host: &str,
    trusted: CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

#[tokio::test]
async fn urls_are_served_over_tls_and_http2() {
    let (server, host) = served().await;
    let host = host.split(':').next().unwrap();
    let _program = Program::echo(&server, 8080).await;
    let dir = tempfile::tempdir().unwrap();
    let first = certify(dir.path());
    let tls = Tls::open(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
    let addr = listen(&server, tls.clone()).await;
    let io = connect(addr, host, first.clone()).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(driver);
    let port = addr.port();
    let ask = |host: &str, path: &str| {
        let token = &server.test.token;
        hyper::Request::get(format!("https://{host}:{port}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Body::empty())
            .unwrap()
    };
    let answer = sender.send_request(ask(host, "/x")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    let seen = String::from_utf8(seen.to_vec()).unwrap();
    assert!(seen.starts_with("GET /x HTTP/1.1\r\n"), "{seen}");
    for line in [
        "x-forwarded-proto: https",
        &format!("host: {host}:{port}"),
        "cookie: a=1; b=2",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line}: {seen}");
    }
    // Nothing of the API is here, whatever its host is called.
    for name in ["api.example.com", "127.0.0.1", "localhost"] {
        let answer = sender.send_request(ask(name, "/v1/sprites")).await.unwrap();
        assert_eq!(answer.status(), 404, "{name}");
    }
    // A browser is sent to the API's own address, with a cookie for TLS alone.
    let mut stranger = ask(host, "/y");
    stranger.headers_mut().remove("authorization");
    let html = axum::http::HeaderValue::from_static("text/html");
    stranger.headers_mut().insert("accept", html);
    let answer = sender.send_request(stranger).await.unwrap();
    assert_eq!(answer.status(), 303);
    let place = answer.headers()["location"].to_str().unwrap();
    assert!(
        place.starts_with("https://api.example.com/login?"),
        "{place}"
    );
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-sprite-url-login="), "{cookie}");
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    // A renewed certificate is shown to whoever comes from then on; a broken one is not.
    let second = certify(dir.path());
    assert!(connect(addr, host, second.clone()).await.is_err());
    tls.renew().unwrap();
    connect(addr, host, second.clone()).await.unwrap();
    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    assert!(tls.renew().is_err());
    connect(addr, host, second).await.unwrap();
    assert!(connect(addr, host, first).await.is_err());
}
