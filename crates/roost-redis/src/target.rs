//! Where Redis is: the URL understood, and how one of its servers is reached. Which of them are masters
//! is found out in `link/`.

use std::fmt;
use std::sync::Arc;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::config::RedisConfig;
use crate::error::StartError;

/// The port of a server, and of a sentinel, where the URL names none.
const PORTS: (u16, u16) = (6379, 26379);

/// How the servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One server, always the same.
    Standalone,
    /// One master that sentinels know under this name.
    Sentinel { master: String },
    /// Masters that share the slots.
    Cluster,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Who we are to a server.
#[derive(Clone, Default, PartialEq, Eq)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

/// A URL, and what else is needed to reach what it names.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) shape: Shape,
    /// The server; or the sentinels; or some of the cluster's nodes.
    pub(crate) seeds: Vec<Address>,
    login: Login,
    sentinel_login: Login,
    database: i64,
    tls: Option<Tls>,
}

/// Certificates, once for the redis client and once for connections of our own.
#[derive(Clone)]
struct Tls {
    certificates: TlsCertificates,
    connector: TlsConnector,
}

/// A byte stream to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// `host`, `host:port`, `[v6]:port`; Redis itself writes `v6:port`.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | '@' | ',');
        (host.chars().all(plain) && port != 0).then(|| Self::new(host, port))
    }
}

// === impl Target ===

impl fmt::Debug for Target {
    /// Without what proves who we are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("shape", &self.shape)
            .field("seeds", &self.seeds)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Target {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, StartError> {
        let mut target = Self::parse(&config.url)?;
        target.sentinel_login = Login {
            user: config.sentinel_user.clone(),
            password: config.sentinel_password.clone(),
        };
        if target.tls.is_some() {
            target.tls = Some(read_tls(config)?);
        } else if config.ca_file.is_some() || config.cert_file.is_some() {
            return Err(StartError::Tls(
                "certificates are given, but the URL asks for no TLS: write rediss://".into(),
            ));
        }
        Ok(target)
    }

    /// Whether a text is a URL of ours; an error says what is wrong, without secrets.
    pub(crate) fn check(url: &str) -> Result<(), StartError> {
        Self::parse(url).map(drop)
    }

    fn parse(url: &str) -> Result<Self, StartError> {
        let wrong = |what: &str| StartError::Url(what.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").ok_or_else(|| wrong("another scheme"))?),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => {
                (read_login(login).ok_or_else(|| wrong("the user or password"))?, rest)
            }
            None => (Login::default(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut path = path.trim_end_matches('/').split('/').filter(|part| !part.is_empty());
        let (shape, port) = match kind {
            "" => (Shape::Standalone, PORTS.0),
            "-cluster" => (Shape::Cluster, PORTS.0),
            "-sentinel" => {
                let master = path.next().ok_or_else(|| wrong("the master's name is missing"))?;
                (Shape::Sentinel { master: master.to_owned() }, PORTS.1)
            }
            _ => return Err(wrong("another scheme")),
        };
        let database = match path.next().map(str::parse) {
            None => 0,
            Some(Ok(database)) if database == 0 || shape != Shape::Cluster => database,
            Some(_) => return Err(wrong("the database is no number, or a cluster has only 0")),
        };
        if path.next().is_some() {
            return Err(wrong("there is more behind the database"));
        }
        let seeds: Option<Vec<Address>> = hosts
            .split(',')
            .map(|host| Address::parse(host.trim(), port).filter(|found| !found.host.is_empty()))
            .collect();
        let seeds = seeds.ok_or_else(|| wrong("a host or port"))?;
        if shape == Shape::Standalone && seeds.len() != 1 {
            return Err(wrong("several hosts are for redis-sentinel:// and redis-cluster://"));
        }
        let tls = tls.then(Tls::undecided);
        Ok(Self { shape, seeds, login, sentinel_login: Login::default(), database, tls })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.shape == Shape::Cluster
    }

    /// A client for a server of commands.
    pub(crate) fn client(&self, address: &Address) -> Result<Client, StartError> {
        self.client_as(address, &self.login, self.database)
    }

    /// A client for a sentinel.
    pub(crate) fn sentinel(&self, address: &Address) -> Result<Client, StartError> {
        self.client_as(address, &self.sentinel_login, 0)
    }

    fn client_as(
        &self,
        address: &Address,
        login: &Login,
        database: i64,
    ) -> Result<Client, StartError> {
        let wrong = |error: redis::RedisError| StartError::Url(error.to_string());
        let (host, port) = (address.host.clone(), address.port);
        let addr = match self.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        // Its name is worth less than a right that it would need.
        let mut who = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
        if let Some(user) = &login.user {
            who = who.set_username(user);
        }
        if let Some(password) = &login.password {
            who = who.set_password(password);
        }
        let info = addr.into_connection_info().map_err(wrong)?.set_redis_settings(who);
        match &self.tls {
            Some(tls) => Client::build_with_tls(info, tls.certificates.clone()).map_err(wrong),
            None => Client::open(info).map_err(wrong),
        }
    }

    /// A bare connection to a server, for subscriptions.
    pub(crate) async fn dial(&self, address: &Address) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(tls.connector.connect(name, stream).await?))
    }

    /// What to say first on it: `AUTH` and its arguments.
    pub(crate) fn auth(&self) -> Option<Vec<&str>> {
        let password = self.login.password.as_deref()?;
        Some(["AUTH"].into_iter().chain(self.login.user.as_deref()).chain([password]).collect())
    }
}

// === impl Tls ===

impl Tls {
    /// In place of what [`read_tls`] will find.
    fn undecided() -> Self {
        let certificates = TlsCertificates { client_tls: None, root_cert: None };
        let config =
            ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has what the default versions need")
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        Self { certificates, connector: TlsConnector::from(Arc::new(config)) }
    }
}

fn read_tls(config: &RedisConfig) -> Result<Tls, StartError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| StartError::Tls(format!("cannot read {}: {error}", path.display())))
    };
    let wrong = |what: &str, error: &dyn fmt::Display| StartError::Tls(format!("{what}: {error}"));
    let root_cert = config.ca_file.as_deref().map(read).transpose()?;
    let client_tls = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
        }
        (None, None) => None,
        _ => {
            return Err(StartError::Tls("a certificate and its key belong together".into()));
        }
    };
    let mut roots = RootCertStore::empty();
    match &root_cert {
        Some(pem) => {
            for found in CertificateDer::pem_slice_iter(pem) {
                let found = found.map_err(|error| wrong("the CA file", &error))?;
                roots.add(found).map_err(|error| wrong("the CA file", &error))?;
            }
            if roots.is_empty() {
                return Err(StartError::Tls("the CA file has no certificate".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS", &error))?
        .with_root_certificates(roots);
    let made = match &client_tls {
        Some(pair) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&pair.client_cert).collect();
            let chain = chain.map_err(|error| wrong("the certificate file", &error))?;
            let key = PrivateKeyDer::from_pem_slice(&pair.client_key)
                .map_err(|error| wrong("the key file", &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong("the certificate and its key", &error))?
        }
        None => builder.with_no_client_auth(),
    };
    let certificates = TlsCertificates { client_tls, root_cert };
    Ok(Tls { certificates, connector: TlsConnector::from(Arc::new(made)) })
}

/// `user:password`, `:password` or `user`, percent-encoded.
fn read_login(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let part = |text: &str| match text {
        "" => Some(None),
        text => decode(text).map(Some),
    };
    Some(Login { user: part(user)?, password: part(password)? })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(target: &Target) -> Vec<String> {
        target.seeds.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls_of_every_kind_are_understood() {
        let one = Target::parse("redis://example").unwrap();
        assert_eq!(
            (one.shape.clone(), seeds(&one)),
            (Shape::Standalone, vec!["example:6379".into()])
        );
        let one = Target::parse("redis://u%40x:p%3aw@[::1]:7000/3").unwrap();
        assert_eq!(one.login.user.as_deref(), Some("u@x"));
        assert_eq!(one.auth(), Some(vec!["AUTH", "u@x", "p:w"]));
        assert_eq!((seeds(&one), one.database), (vec!["[::1]:7000".to_owned()], 3));
        let one = Target::parse("rediss-sentinel://:pw@a,b:7/mymaster/2").unwrap();
        assert_eq!(one.shape, Shape::Sentinel { master: "mymaster".into() });
        assert_eq!(seeds(&one), ["a:26379", "b:7"]);
        assert!(one.tls.is_some() && one.database == 2);
        assert_eq!(one.auth(), Some(vec!["AUTH", "pw"]));
        let one = Target::parse("redis-cluster://a:1,b:2,c/").unwrap();
        assert_eq!((one.shape.clone(), seeds(&one).len()), (Shape::Cluster, 3));
    }

    #[test]
    fn what_is_no_url_is_refused_without_its_secrets() {
        for bad in [
            "",
            "redis",
            "http://a",
            "redis://",
            "redis://a,b",
            "redis://a:0",
            "redis://a:port",
            "redis://a/x",
            "redis-cluster://a/1",
            "redis-sentinel://a",
            "redis-other://a",
            "redis://u:%zz@a",
            "redis://a/0/1",
        ] {
            let error = Target::parse(bad).unwrap_err();
            assert!(matches!(error, StartError::Url(_)), "{bad}: {error}");
        }
        let error = Target::parse("redis://u:s3cret@a:port").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
