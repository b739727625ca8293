//! Looking whether a certificate has changed, and taking it into use if it is good. By content: a mounted
//! Secret changes by swapping a link, certbot by writing files, and both show in the same way.

use std::sync::Arc;
use std::time::Duration;

use roost_telemetry::metrics::NodeMetrics;
use roost_telemetry::metrics::labels::ReloadOutcome;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::TlsSetup;
use super::certificate::{Certificate, CertificateError, Digest};

/// Between two looks. Certificates are renewed days before they expire.
const EVERY: Duration = Duration::from_secs(5);

/// Looks after the certificates of a node's ports.
#[derive(Debug)]
pub(crate) struct Watch {
    ports: Vec<Watched>,
    metrics: Arc<NodeMetrics>,
    /// Somebody asks for a look at once.
    now: Arc<Notify>,
}

#[derive(Debug)]
struct Watched {
    setup: TlsSetup,
    in_use: Digest,
    /// Was not good at the last look: it is given one more, since it may be half written.
    suspect: Option<Digest>,
    /// Was told about.
    told: Option<Digest>,
}

/// What a look found.
#[derive(Debug)]
enum Found {
    /// Nothing new, or nothing that is told now.
    Nothing,
    New(Certificate),
    Bad(CertificateError),
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(ports: Vec<TlsSetup>, metrics: Arc<NodeMetrics>) -> Self {
        let ports = ports.into_iter().map(|setup| {
            metrics.set_tls_cert_expiry(setup.port, setup.first.until);
            if setup.first.has_expired() {
                // Served all the same: without it nobody could connect at all.
                let (file, on) = (setup.files.cert.display(), setup.first.expiry());
                tracing::error!(port = ?setup.port, "the certificate in {file} expired on {on}");
            }
            Watched { in_use: setup.first.digest, setup, suspect: None, told: None }
        });
        Self { ports: ports.collect(), metrics, now: Arc::default() }
    }

    /// Wakes the watch: it looks at once, and takes no second look at what is not good.
    pub(crate) fn asking(&self) -> Arc<Notify> {
        Arc::clone(&self.now)
    }

    /// Looks every few seconds until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                biased;
                // The end comes first.
                () = stop.cancelled() => return,
                () = self.now.notified() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            for port in &mut self.ports {
                let found = port.look(asked).await;
                port.act(found, &self.metrics);
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    async fn look(&mut self, asked: bool) -> Found {
        let files = self.setup.files.clone();
        // A disk may take its time.
        let reading = tokio::task::spawn_blocking(move || {
            let contents = files.contents();
            (contents.digest(), files.parse(contents))
        });
        let Ok((digest, parsed)) = reading.await else {
            // The runtime is going down.
            return Found::Nothing;
        };
        if digest == self.in_use {
            (self.suspect, self.told) = (None, None);
            return Found::Nothing;
        }
        let problem = match parsed {
            Ok(new) if new.has_expired() => {
                let (file, on) = (self.setup.files.cert.clone(), new.expiry());
                CertificateError::Expired { file, on }
            }
            Ok(new) => return Found::New(new),
            Err(problem) => problem,
        };
        let again = self.suspect.replace(digest) == Some(digest);
        let told = self.told == Some(digest);
        if !asked && (!again || told) {
            return Found::Nothing;
        }
        self.told = Some(digest);
        Found::Bad(problem)
    }

    fn act(&mut self, found: Found, metrics: &NodeMetrics) {
        let port = self.setup.port;
        match found {
            Found::Nothing => {}
            Found::New(new) => {
                let (serial, until) = (&new.serial, new.expiry());
                tracing::info!(?port, serial, %until, "a new certificate is in use");
                metrics.set_tls_cert_expiry(port, new.until);
                metrics.tls_cert_reloads.inc((port, ReloadOutcome::Reloaded));
                (self.in_use, self.suspect, self.told) = (new.digest, None, None);
                self.setup.current.0.store(new.key);
            }
            Found::Bad(problem) => {
                tracing::error!(
                    ?port,
                    "the new certificate is not used, and the one before stays in use: {problem}"
                );
                metrics.tls_cert_reloads.inc((port, ReloadOutcome::Failed));
            }
        }
    }
}
