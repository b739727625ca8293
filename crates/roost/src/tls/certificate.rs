//! A certificate and its key, from two PEM files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use super::validity::Validity;

/// Where a port's certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// The certificate, and those that lead to a root, in PEM.
    pub(crate) cert: PathBuf,
    /// Its key, in PEM: PKCS #8, PKCS #1 or SEC 1.
    pub(crate) key: PathBuf,
}

/// A certificate that can be shown: it is one, and the key is its own.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// Tells contents apart.
    pub(super) digest: Digest,
    /// Until when it is good, in seconds since 1970.
    pub(super) until: i64,
    /// Its serial number, in hexadecimal.
    pub(super) serial: String,
}

/// What both files hold, in few bytes; also of files that cannot be read.
pub(super) type Digest = [u8; 32];

/// Why there is no certificate in the files. Names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot read {}: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    #[error("{} has no {what} in PEM (-----BEGIN {begins}-----)", file.display())]
    Missing { file: PathBuf, what: &'static str, begins: &'static str },
    #[error("{} cannot be used: {why}", file.display())]
    Unusable { file: PathBuf, why: String },
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("the certificate in {} expired on {on}", file.display())]
    Expired { file: PathBuf, on: Timestamp },
}

/// Both files as they are now.
pub(super) struct Contents {
    cert: Result<Vec<u8>, CertificateError>,
    key: Result<Vec<u8>, CertificateError>,
}

// === impl CertificateFiles ===

impl CertificateFiles {
    /// Reads both. Blocks for as long as the disk does.
    pub(crate) fn read(&self) -> Result<Certificate, CertificateError> {
        self.parse(self.contents())
    }

    pub(super) fn contents(&self) -> Contents {
        let read = |file: &Path| {
            std::fs::read(file).map_err(|error| CertificateError::Unreadable {
                file: file.to_owned(),
                why: error.to_string(),
            })
        };
        Contents { cert: read(&self.cert), key: read(&self.key) }
    }

    /// What the files hold, where it is of any use.
    pub(super) fn parse(&self, contents: Contents) -> Result<Certificate, CertificateError> {
        let digest = contents.digest();
        let unusable = |file: &Path, why: &dyn fmt::Display| CertificateError::Unusable {
            file: file.to_owned(),
            why: why.to_string(),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.cert?).collect();
        let chain = chain.map_err(|error| unusable(&self.cert, &error))?;
        let (what, begins) = ("certificate", "CERTIFICATE");
        let Some(leaf) = chain.first() else {
            return Err(CertificateError::Missing { file: self.cert.clone(), what, begins });
        };
        let validity = Validity::of(leaf).ok_or_else(|| {
            unusable(&self.cert, &"its first certificate is no X.509 certificate")
        })?;
        let (what, begins) = ("private key", "PRIVATE KEY");
        let key = PrivateKeyDer::from_pem_slice(&contents.key?)
            .map_err(|_| CertificateError::Missing { file: self.key.clone(), what, begins })?;
        let provider = ring::default_provider();
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| unusable(&self.key, &error))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                let (cert, key) = (self.cert.clone(), self.key.clone());
                return Err(CertificateError::Mismatch { cert, key });
            }
            Err(error) => return Err(unusable(&self.cert, &error)),
        }
        let Validity { until, serial, .. } = validity;
        Ok(Certificate { key: Arc::new(key), digest, until, serial })
    }
}

// === impl Contents ===

impl Contents {
    pub(super) fn digest(&self) -> Digest {
        let mut digest = Sha256::new();
        for content in [&self.cert, &self.key] {
            match content {
                Ok(bytes) => digest.update(Sha256::digest(bytes)),
                Err(error) => digest.update(Sha256::digest(error.to_string())),
            }
        }
        digest.finalize().into()
    }
}

// === impl Certificate ===

impl Certificate {
    /// Whether clients still take it, as far as time is concerned.
    pub(super) fn has_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.until < i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
    }

    /// Until when it is good, for people.
    pub(super) fn expiry(&self) -> Timestamp {
        Timestamp { seconds: self.until, nanos: 0 }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.serial, self.expiry())
    }
}
