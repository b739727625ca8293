//! TLS on the node's own ports: certificates from files, and how the ports speak. `certificate.rs` reads
//! the files, `watch.rs` looks whether they changed; TLS' bytes are in `roost-edge` and `roost-control`.

mod certificate;
mod validity;
mod watch;

use std::sync::Arc;

use arc_swap::ArcSwap;
use roost_telemetry::metrics::NodeMetrics;
use roost_telemetry::metrics::labels::TlsPort;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{Config, Problem, Problems};
pub(crate) use certificate::{Certificate, CertificateFiles};
pub(crate) use watch::Watch;

/// The certificate that new handshakes are shown; connections that stand keep theirs.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

/// One port with TLS.
#[derive(Debug)]
pub(crate) struct TlsSetup {
    port: TlsPort,
    files: CertificateFiles,
    first: Certificate,
    current: Arc<Current>,
    /// What the port's listener takes.
    pub(crate) server: Arc<ServerConfig>,
}

/// The ports of a node that have TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsPorts {
    pub(crate) edge: Option<TlsSetup>,
    pub(crate) grpc: Option<TlsSetup>,
}

// === impl Current ===

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

// === impl TlsSetup ===

impl TlsSetup {
    /// A port that shows this certificate and agrees, where the client cares, on this protocol.
    fn new(
        port: TlsPort,
        files: CertificateFiles,
        first: Certificate,
        protocol: &[u8],
    ) -> Result<Self, rustls::Error> {
        let current = Arc::new(Current(ArcSwap::new(Arc::clone(&first.key))));
        let resolver = Arc::clone(&current) as Arc<dyn ResolvesServerCert>;
        // TLS 1.2 for the devices that will not learn 1.3 any more; nothing older.
        let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.alpn_protocols = vec![protocol.to_vec()];
        // A device that comes back to this node is spared the certificate and this node the signature;
        // nothing is kept here for it, and one ticket is enough for one connection.
        server.ticketer = ring::Ticketer::new()?;
        server.send_tls13_tickets = 1;
        Ok(Self { port, files, first, current, server: Arc::new(server) })
    }
}

// === impl TlsPorts ===

impl TlsPorts {
    /// Reads what the configuration names. All that is wrong is told.
    pub(crate) fn of(config: &Config) -> Result<Self, Problems> {
        let role = config.node.role;
        let mut problems = vec![];
        let mut set_up = |there: bool, port, protocol, files: Option<CertificateFiles>| {
            let files = files.filter(|_| there)?;
            let read = files.read().map_err(|error| error.to_string()).and_then(|first| {
                TlsSetup::new(port, files, first, protocol).map_err(|error| error.to_string())
            });
            let key = match port {
                TlsPort::Edge => "edge.tls_cert_file",
                TlsPort::Grpc => "grpc.tls_cert_file",
            };
            read.map_err(|problem| problems.push(Problem(format!("{key}: {problem}")))).ok()
        };
        let edge = config.edge.certificate_files();
        let grpc = config.grpc.certificate_files();
        let ports = Self {
            edge: set_up(role.has_edge(), TlsPort::Edge, b"http/1.1", edge),
            grpc: set_up(role.has_control(), TlsPort::Grpc, b"h2", grpc),
        };
        if problems.is_empty() { Ok(ports) } else { Err(Problems(problems)) }
    }

    /// What looks after the certificates from now on; `None` where there are none.
    pub(crate) fn watch(self, metrics: Arc<NodeMetrics>) -> Option<Watch> {
        let ports: Vec<_> = self.edge.into_iter().chain(self.grpc).collect();
        (!ports.is_empty()).then(|| Watch::new(ports, metrics))
    }
}
