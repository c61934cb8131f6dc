//! A server on fakes, and clients.

pub(crate) mod described;
pub(crate) mod http;
pub(crate) mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use sprite_host::HostOptions;
use sprite_server::{
    Api, CustomDomains, Front, ServeLimits, ServerConfig, SpriteUrls, UrlKey, UrlScheme, serve_with,
};
use sprite_testkit::TestHost;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A server on a host of fakes.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) test: TestHost,
    pub(crate) api: Api,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(TestHost::options(), ServeLimits::default()).await
    }

    pub(crate) async fn with(options: HostOptions, limits: ServeLimits) -> Self {
        Self::configured(options, limits, |_| {}).await
    }

    /// Like [`Server::with`], with other settings of the API.
    pub(crate) async fn configured(
        options: HostOptions,
        limits: ServeLimits,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let test = TestHost::with(options).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut config = ServerConfig {
            public_base: format!("http://{addr}"),
            sprite_urls: SpriteUrls {
                scheme: UrlScheme::Http,
                domain: "sprites.localhost".to_owned(),
                port: Some(addr.port()),
                front: Front::Direct,
            },
            url_key: UrlKey::new([7; UrlKey::LEN]),
            custom_domains: CustomDomains::Off,
            url_requests: ServerConfig::URL_REQUESTS,
        };
        change(&mut config);
        let (stop, stopped) = oneshot::channel::<()>();
        let api = Api::new(test.host.clone(), config);
        let router = api.router();
        let calls = test.host.calls().expect("nobody else takes them");
        let inside = api.clone();
        tokio::spawn(async move { inside.serve_inside(calls, std::future::pending()).await });
        let task = tokio::spawn(serve_with(listener, router, limits, async {
            // An error means that the test is over.
            let _ = stopped.await;
        }));
        Self {
            addr,
            test,
            api,
            stop: Some(stop),
            task,
        }
    }

    /// Another listener of the server, for URLs alone.
    pub(crate) async fn listen_for_urls(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = self.api.url_router();
        let limits = ServeLimits::default();
        tokio::spawn(serve_with(listener, router, limits, std::future::pending()));
        addr
    }

    /// A server that takes peers for gone after so much silence.
    pub(crate) async fn with_silence(silent_for: Duration) -> Self {
        let limits = ServeLimits {
            silent_for,
            ..ServeLimits::default()
        };
        Self::with(TestHost::options(), limits).await
    }

    /// A server with one sprite, `s`.
    pub(crate) async fn with_sprite() -> Self {
        let server = Self::start().await;
        server.test.create("s").await;
        server
    }

    /// A token of another organisation.
    pub(crate) async fn foreign_token(&self) -> String {
        self.test
            .host
            .create_token(&"others".parse().unwrap(), "test")
            .await
            .unwrap()
    }

    /// Stops the server in order, and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap();
    }
}
