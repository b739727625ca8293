//! What the demo plays on: a hub with keys of its own, simulated devices that connect to it over
//! sockets, and a back end that calls it over gRPC.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roost_auth::{DEFAULT_AUDIENCE, TokenKey, generate_api_key, mint_device_token};
use roost_client::backend::Backend;
use roost_types::{DeviceId, TenantId, TopicFilter};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::cli::Failure;
use crate::cli::simulate::Proof;
use crate::cli::token::{wall_clock, write_secret};
use crate::config::Config;
use crate::hub::{Addresses, Hub, RunningHub, StartError};
use crate::simulated::{Counts, Seen, Simulated};

/// How long anything may take before it counts as not working.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often devices publish their temperature.
const TELEMETRY: Duration = Duration::from_millis(250);
/// How long the device token for the audience is good.
const INVITATION: Duration = Duration::from_secs(24 * 3600);

/// Hub, devices and back end.
pub(super) struct Stage {
    hub: RunningHub,
    pub(super) addresses: Addresses,
    pub(super) backend: Backend,
    pub(super) seen: mpsc::Receiver<Seen>,
    watcher: mpsc::Sender<Seen>,
    counts: Arc<Counts>,
    proof: Proof,
    tasks: JoinSet<()>,
    devices: HashMap<&'static str, AbortHandle>,
    keys: Keys,
}

/// The key files, in a directory that only this user can read and that goes with the demo.
struct Keys {
    directory: TempDir,
}

// === impl Keys ===

impl Keys {
    fn make() -> Result<(Self, TokenKey, String), Failure> {
        let directory = tempfile::Builder::new().prefix("roost-demo-").tempdir()?;
        let keys = Self { directory };
        let token_key = TokenKey::generate();
        let api_key = generate_api_key();
        write_secret(&keys.file("token.key"), &String::from_utf8_lossy(token_key.as_bytes()))?;
        write_secret(&keys.file("api.key"), &api_key)?;
        let (me, tenant) = (visitor(), TenantId::default());
        let now = wall_clock();
        let token = mint_device_token(&token_key, &me, &tenant, DEFAULT_AUDIENCE, INVITATION, now);
        write_secret(&keys.file("device.token"), &token)?;
        Ok((keys, token_key, api_key))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The device that the audience is invited to be.
pub(super) fn visitor() -> DeviceId {
    DeviceId::new("me").expect("it obeys the rule")
}

// === impl Stage ===

impl Stage {
    /// Starts the hub on free ports, or on the usual ones if the audience is to stay and they are
    /// free.
    pub(super) async fn open(once: bool) -> Result<Self, Failure> {
        let (keys, token_key, api_key) = Keys::make()?;
        let hub = start(&keys, once).await?;
        let addresses = hub.addresses();
        let grpc = addresses.grpc.expect("a node of both roles has both ports");
        let backend = Backend::connect(&format!("http://{grpc}"), &api_key).await?;
        let (watcher, seen) = mpsc::channel(1024);
        Ok(Self {
            hub,
            addresses,
            backend,
            seen,
            watcher,
            counts: Arc::default(),
            proof: Proof::Key(Arc::new(token_key), DEFAULT_AUDIENCE.to_owned()),
            tasks: JoinSet::new(),
            devices: HashMap::new(),
            keys,
        })
    }

    pub(super) fn url(&self) -> String {
        let edge = self.addresses.edge.expect("a node of both roles has both ports");
        format!("ws://{edge}/v1/connect")
    }

    pub(super) fn key_file(&self, name: &str) -> impl std::fmt::Display {
        self.keys.file(name).display().to_string()
    }

    /// Connects a device that subscribes to this.
    pub(super) fn connect(&mut self, name: &'static str, filter: &str) -> Result<(), Failure> {
        let device = DeviceId::new(name).map_err(Failure::failed)?;
        let options = self.proof.options(&self.url(), &device, &TenantId::default())?;
        let filter = TopicFilter::new(filter).map_err(Failure::failed)?;
        let simulated = Simulated {
            name: name.to_owned(),
            options: options.subscribe(filter),
            telemetry: Some(TELEMETRY),
            counts: Arc::clone(&self.counts),
            watcher: Some(self.watcher.clone()),
        };
        let task = self.tasks.spawn(simulated.live());
        self.devices.insert(name, task);
        Ok(())
    }

    /// Cuts a device's connection, without a word to the hub.
    pub(super) fn pull_the_plug(&mut self, name: &str) {
        if let Some(task) = self.devices.remove(name) {
            task.abort();
        }
    }

    /// Waits until so many devices did something, and says which; fewer if it took too long.
    pub(super) async fn wait_for(
        &mut self,
        count: usize,
        what: impl Fn(&Seen) -> Option<String>,
    ) -> Vec<String> {
        let mut names = Vec::new();
        let all = async {
            while names.len() < count {
                let Some(seen) = self.seen.recv().await else { return };
                names.extend(what(&seen));
            }
        };
        // What is missing shows in the names.
        patiently(all).await.ok();
        names
    }

    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        self.hub.shutdown().await;
    }
}

/// Waits, but not for ever.
pub(super) async fn patiently<T>(what: impl Future<Output = T>) -> Result<T, Failure> {
    let waited = tokio::time::timeout(PATIENCE, what).await;
    waited.map_err(|_| Failure::failed(format!("nothing happened for {} s", PATIENCE.as_secs())))
}

async fn start(keys: &Keys, once: bool) -> Result<RunningHub, Failure> {
    let usual = config(&keys.file("token.key"), &keys.file("api.key"));
    let mut free = usual.clone();
    free.edge.addr.set_port(0);
    free.grpc.addr.set_port(0);
    free.admin.addr.set_port(0);
    if once {
        return Ok(Hub::start(free).await?);
    }
    match Hub::start(usual).await {
        Err(StartError::Listen { .. }) => Ok(Hub::start(free).await?),
        started => Ok(started?),
    }
}

fn config(token_key: &Path, api_key: &Path) -> Config {
    let mut config = Config::default();
    config.auth.token_key_file = Some(token_key.to_owned());
    config.auth.api_key_file = Some(api_key.to_owned());
    config.node.id = roost_types::NodeId::new("demo").ok();
    // The devices of the audience come back by themselves: nobody needs a slow goodbye.
    config.shutdown.drain = Duration::ZERO;
    config
}
