//! Whom a client takes for the hub, for devices and back ends alike; and what a failed TLS handshake
//! means, in words that name the mistake.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The authorities by whose certificates a hub may prove itself. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    devices: Arc<ClientConfig>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why there is nobody to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read the CA file {}: {why}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// The file has no certificate that could be trusted.
    #[error("the CA file {} has no usable certificate in PEM (-----BEGIN CERTIFICATE-----)", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
    },
    /// The system has no certificates.
    #[error("this system has no CA certificates; name a CA file (roost: --ca-file)")]
    NoSystem,
}

// === impl Trust ===

impl Trust {
    /// The authorities in a PEM file, and no others.
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        let file = path.to_owned();
        let read = std::fs::read(path);
        let pem = read.map_err(|error| TrustError::Unreadable {
            file: file.clone(),
            why: error.to_string(),
        })?;
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        Self::of(certificates).ok_or(TrustError::Empty { file })
    }

    /// The authorities that the system trusts; read once in a process.
    pub fn system() -> Result<Self, TrustError> {
        static SYSTEM: OnceLock<Option<Trust>> = OnceLock::new();
        let system =
            SYSTEM.get_or_init(|| Self::of(rustls_native_certs::load_native_certs().certs));
        system.clone().ok_or(TrustError::NoSystem)
    }

    fn of(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return None;
        }
        let anchors = roots.roots.clone();
        let mut devices = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        devices.alpn_protocols = vec![b"http/1.1".to_vec()];
        Some(Self(Arc::new(Inner { devices: Arc::new(devices), anchors })))
    }

    /// For tonic, which makes its own configuration.
    pub(crate) fn anchors(&self) -> impl Iterator<Item = TrustAnchor<'static>> {
        self.0.anchors.clone().into_iter()
    }

    /// TLS over a device's socket.
    pub(crate) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0.devices)).connect(name, socket).await
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} authorities)", self.0.anchors.len())
    }
}

impl PartialEq for Trust {
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trust {}

/// What the mistake is, where an error has one of TLS' among its causes. `plain` is how to connect
/// without TLS.
pub(crate) fn explain(error: &(dyn Error + 'static), plain: &str) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(in_words(error, plain));
        }
        // An I/O error passes over what it wraps when it is asked for its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn in_words(error: &rustls::Error, plain: &str) -> String {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => format!("what answers there does not speak TLS: connect by {plain}"),
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the hub's certificate comes from a CA that is not trusted here: name the right CA file \
             (roost: --ca-file)"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "the hub's certificate has expired, or this machine's clock is wrong".to_owned()
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("the hub's certificate is for another name: {error}")
        }
        error => format!("TLS with the hub failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let missing = Trust::file(Path::new("/none/ca.pem")).unwrap_err().to_string();
        assert!(missing.contains("/none/ca.pem"), "{missing}");
        let empty = Trust::file(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(empty.contains("/dev/null") && empty.contains("BEGIN CERTIFICATE"), "{empty}");
    }

    #[test]
    fn mistakes_are_found_however_deep_they_are_wrapped() {
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, plain));
        let told = explain(&error, "ws://").unwrap();
        assert!(told.contains("does not speak TLS") && told.contains("ws://"), "{told}");
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(explain(&unknown, "ws://").unwrap().contains("--ca-file"));
        assert_eq!(explain(&io::Error::other("else"), "ws://"), None);
    }
}
