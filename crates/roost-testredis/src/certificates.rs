//! Certificates of a test's own: an authority, a server and a client certificate for loopback, as PEM
//! files that go with the value.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority and what it signed. Nobody else trusts it.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

// === impl Certificates ===

impl Certificates {
    /// Makes fresh ones: the server's is good for `localhost`, `127.0.0.1` and `::1`, the client's
    /// common name is `client`.
    pub fn generate() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("roost-certificates-").tempdir()?;
        let made = Self { directory };
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "an authority of tests");
        std::fs::write(made.ca(), ca.self_signed(&ca_key)?.pem())?;
        let issuer = Issuer::new(ca, ca_key);
        let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let server = (made.server_certificate(), made.server_key());
        issue(&issuer, "server", loopback, ExtendedKeyUsagePurpose::ServerAuth, &server)?;
        let client = (made.client_certificate(), made.client_key());
        issue(&issuer, "client", vec![], ExtendedKeyUsagePurpose::ClientAuth, &client)?;
        Ok(made)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The server's certificate.
    pub fn server_certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The key of the server's certificate.
    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// A client's certificate.
    pub fn client_certificate(&self) -> PathBuf {
        self.file("client.pem")
    }

    /// The key of the client's certificate.
    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Writes a certificate and its key to these two files.
fn issue(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    addresses: Vec<String>,
    purpose: ExtendedKeyUsagePurpose,
    files: &(impl AsRef<Path>, impl AsRef<Path>),
) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(addresses)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate()?;
    std::fs::write(&files.0, params.signed_by(&key, issuer)?.pem())?;
    std::fs::write(&files.1, key.serialize_pem())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_files_that_go_with_the_value() {
        let made = Certificates::generate().unwrap();
        let files = [
            made.ca(),
            made.server_certificate(),
            made.server_key(),
            made.client_certificate(),
            made.client_key(),
        ];
        for file in &files {
            assert!(std::fs::read_to_string(file).unwrap().starts_with("-----BEGIN "));
        }
        drop(made);
        assert!(files.iter().all(|file| !file.exists()));
    }
}
