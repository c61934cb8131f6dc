//! How a connection is made: TCP, and TLS above it where the address says `https`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::Error;
use crate::url::ServerUrl;

/// Makes connections to one server and to no other.
#[derive(Clone)]
pub(crate) struct Connector {
    server: Arc<ServerUrl>,
    timeout: Duration,
    /// Read from the system when the first encrypted connection is made: it costs milliseconds.
    tls: Arc<OnceLock<TlsConnector>>,
}

impl Connector {
    pub(crate) fn new(server: Arc<ServerUrl>, timeout: Duration) -> Self {
        Self {
            server,
            timeout,
            tls: Arc::new(OnceLock::new()),
        }
    }

    /// One new connection, within the time limit.
    ///
    /// # Cancel safety
    /// Dropping the future drops the half-made connection.
    pub(crate) async fn connect(&self) -> Result<Transport, Error> {
        let failed = |source| Error::Connect {
            server: (*self.server).clone(),
            source: Arc::new(source),
        };
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened.map_err(failed),
            Err(_) => Err(failed(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", self.timeout.as_secs()),
            ))),
        }
    }

    async fn open(&self) -> io::Result<Transport> {
        let tcp = TcpStream::connect((self.server.host(), self.server.port())).await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&keep_alive())?;
        if !self.server.is_tls() {
            return Ok(Transport::Plain(tcp));
        }
        let name = ServerName::try_from(self.server.host().to_owned())
            .map_err(|source| io::Error::new(io::ErrorKind::InvalidInput, source))?;
        let tls = self.tls_connector()?.connect(name, tcp).await?;
        Ok(Transport::Tls(Box::new(tls)))
    }

    fn tls_connector(&self) -> io::Result<TlsConnector> {
        if let Some(ready) = self.tls.get() {
            return Ok(ready.clone());
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "this system has no certificates of authorities to trust (set SSL_CERT_FILE)",
            ));
        }
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(self
            .tls
            .get_or_init(|| TlsConnector::from(Arc::new(config)))
            .clone())
    }
}

/// How a host that vanished without a word is noticed: after about a minute.
fn keep_alive() -> TcpKeepalive {
    let pause = Duration::from_secs(15);
    TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(pause)
}

/// A connection to the server, encrypted or not.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Transport::Tls($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A [`Transport`] as hyper's pool wants it.
#[derive(Debug)]
pub(crate) struct Pooled(TokioIo<Transport>);

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pooled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Pooled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Pooled;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Pooled, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    // The URI is not looked at: a connector knows one server, so no redirect or bad URI can lead elsewhere.
    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(|io| Pooled(TokioIo::new(io))) })
    }
}
