//! TLS of a listener: a certificate that can be renewed while it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// HTTP/2, and what it is before.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("find a certificate in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The key is of an unknown kind, or not the certificate's.
    #[error("use the key in {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The protocol cannot be set up.
    #[error("set up TLS")]
    Protocol(#[source] rustls::Error),
}

/// A listener's certificate and its key. Cheap to clone; all clones are renewed together.
#[derive(Clone)]
pub struct Tls {
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    now: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its key. Both are PEM.
    ///
    /// # Errors
    /// They cannot be read, or do not fit.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let shown = Arc::new(Shown {
            now: RwLock::new(Arc::new(read(certificate, key, &provider)?)),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider: provider.clone(),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Self {
            shown,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Reads the files again. New connections are shown what they hold now.
    ///
    /// # Errors
    /// They cannot be read, or do not fit; what was shown before goes on being shown.
    pub fn renew(&self) -> Result<(), TlsError> {
        let Shown {
            certificate,
            key,
            provider,
            now,
        } = &*self.shown;
        let renewed = read(certificate, key, provider)?;
        *now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    /// Greets a client. Says whether it speaks HTTP/2.
    pub(super) async fn accept<S>(
        &self,
        io: S,
    ) -> io::Result<(tokio_rustls::server::TlsStream<S>, bool)>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let io = self.acceptor.accept(io).await?;
        let http2 = io.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
        Ok((io, http2))
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Some(now.clone())
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(unread(certificate))?;
    if chain.is_empty() {
        let path = certificate.to_owned();
        return Err(TlsError::Empty { path });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unread(key))?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|source| TlsError::Key {
        path: key.to_owned(),
        source,
    })
}
