//! Certificates for tests: an authority made on the spot, what it signs, and files that change as a
//! mounted Secret does.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};
use roost_client::Trust;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::soon;

/// An authority with a key of its own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    directory: TempDir,
}

/// A certificate for `localhost` and 127.0.0.1, and its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// `tls.crt` and `tls.key`, changed together by swapping a link, as Kubernetes does.
#[derive(Debug)]
pub struct MountedSecret {
    directory: TempDir,
    versions: u32,
}

// === impl Authority ===

impl Authority {
    /// Makes one.
    pub fn generate() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let directory = tempfile::tempdir().unwrap();
        let authority = Self { issuer: Issuer::new(params, key), certificate, directory };
        std::fs::write(authority.ca_file(), &authority.certificate).unwrap();
        authority
    }

    /// Its certificate, for `--ca-file`.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Clients that believe it, and nobody else.
    pub fn trust(&self) -> Trust {
        Trust::file(&self.ca_file()).unwrap()
    }

    /// A certificate with this serial number, good until 2999.
    pub fn sign(&self, serial: u8) -> Leaf {
        self.sign_until(serial, 2999)
    }

    /// The same, good until a year begins.
    pub fn sign_until(&self, serial: u8, year: i32) -> Leaf {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { cert, key: key.serialize_pem() }
    }

    /// A TLS connection in one of these versions, by a client that resumes nothing.
    pub async fn connect(
        &self,
        address: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(address).await?;
        let name = "localhost".try_into().unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
        soon("a TLS handshake", connecting).await
    }

    /// Which certificate is shown to new connections.
    pub async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(address, rustls::ALL_VERSIONS).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    }
}

// === impl Leaf ===

impl Leaf {
    /// As it is shown in a handshake.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

// === impl MountedSecret ===

impl MountedSecret {
    /// Mounts it with this certificate.
    pub fn mount(leaf: &Leaf) -> Self {
        let mut secret = Self { directory: tempfile::tempdir().unwrap(), versions: 0 };
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), secret.directory.path().join(name)).unwrap();
        }
        secret.change(&leaf.cert, &leaf.key);
        secret
    }

    /// Where the certificate is.
    pub fn cert_file(&self) -> String {
        self.file("tls.crt")
    }

    /// Where its key is.
    pub fn key_file(&self) -> String {
        self.file("tls.key")
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Changes both at once, whatever they hold.
    pub fn change(&mut self, cert: &str, key: &str) {
        self.versions += 1;
        let root = self.directory.path();
        let version = format!("..{}", self.versions);
        std::fs::create_dir(root.join(&version)).unwrap();
        std::fs::write(root.join(&version).join("tls.crt"), cert).unwrap();
        std::fs::write(root.join(&version).join("tls.key"), key).unwrap();
        symlink(&version, root.join("..new")).unwrap();
        std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    }
}
