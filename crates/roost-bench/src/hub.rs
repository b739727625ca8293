//! A hub as a process of its own, for a benchmark: started with keys of its own on free ports of
//! loopback, and stopped when the benchmark ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use roost_auth::{TokenKey, generate_api_key};
use roost_client::Trust;
use roost_client::device::Url;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running hub; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct HubProcess {
    child: Child,
    /// Where devices connect.
    pub(crate) url: Url,
    pub(crate) token_key: TokenKey,
    /// Holds the key files.
    _directory: TempDir,
}

// === impl HubProcess ===

impl HubProcess {
    /// Starts `program serve`, where devices connect with or without TLS, and waits until it listens.
    /// Blocks.
    pub(crate) fn start(program: &Path, redis: Option<&str>, tls: bool) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for keys")?;
        let token_key = TokenKey::generate();
        let token_file = directory.path().join("token.key");
        let api_file = directory.path().join("api.key");
        std::fs::write(&token_file, token_key.as_bytes())?;
        std::fs::write(&api_file, generate_api_key())?;
        let mut command = Command::new(program);
        command.args(["serve", "--log-level", "warn", "--auth", "token"]);
        for flag in ["--edge-addr", "--grpc-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.arg("--token-key-file").arg(token_file);
        command.arg("--api-key-file").arg(api_file);
        for (name, _) in std::env::vars_os() {
            // The benchmark's hub is nobody else's.
            if name.to_string_lossy().starts_with("ROOST_") {
                command.env_remove(name);
            }
        }
        // A Redis that other hubs use stays clean: keys of our own, which go after a minute.
        command.env("ROOST_REDIS__PREFIX", "roost-bench");
        command.env("ROOST_STORE__DEVICE_RETENTION", "60s");
        // Connecting is measured, not a limit on it.
        command.env("ROOST_EDGE__CONNECT_RATE", "0");
        let trust = tls.then(|| give_certificate(&mut command, directory.path())).transpose()?;
        if let Some(url) = redis {
            command.args(["--redis", url]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().expect("it was asked to be piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let listening: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let (scheme, key) = if tls { ("wss", "edge_tls") } else { ("ws", "edge") };
        let Some(edge) = listening[key].as_str() else {
            // It has said why on standard error, which is ours too.
            child.wait()?;
            bail!("the hub did not start");
        };
        let mut url: Url = format!("{scheme}://{edge}").parse()?;
        if let Some(trust) = trust {
            url = url.trusting(trust);
        }
        Ok(Self { url, child, token_key, _directory: directory })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop and waits for its end. Blocks.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the hub ended with {status}");
        }
        Ok(())
    }
}

/// Makes a certificate for the hub, and whom its devices are to trust for it.
fn give_certificate(hub: &mut Command, directory: &Path) -> anyhow::Result<Trust> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (cert, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    hub.env("ROOST_EDGE__TLS_ADDR", "127.0.0.1:0");
    hub.env("ROOST_EDGE__TLS_CERT_FILE", &cert).env("ROOST_EDGE__TLS_KEY_FILE", &key);
    Ok(Trust::file(&cert)?)
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Both fail only where it is gone already.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
