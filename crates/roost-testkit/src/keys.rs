//! The keys of a hub under test, in files that go with it, and tokens for its devices.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roost_auth::{DEFAULT_AUDIENCE, TokenKey, generate_api_key, mint_device_token};
use roost_types::{DeviceId, TenantId, UnixMillis};
use tempfile::TempDir;

/// How long a token is good for, where a test does not say.
const HOUR: Duration = Duration::from_secs(3600);

/// A token key and an API key, fresh, and the files that hold them. The API key's name is `tests`.
#[derive(Debug)]
pub struct Keys {
    directory: TempDir,
    token_key: TokenKey,
    api_key: String,
}

// === impl Keys ===

impl Keys {
    /// Makes keys and writes them to a new directory.
    pub fn generate() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Self { directory, token_key: TokenKey::generate(), api_key: generate_api_key() };
        std::fs::write(keys.token_key_file(), keys.token_key.as_bytes()).unwrap();
        let line = format!("tests default {}\n", keys.api_key);
        std::fs::write(keys.api_key_file(), line).unwrap();
        keys
    }

    /// What signs device tokens.
    pub fn token_key_file(&self) -> PathBuf {
        self.directory.path().join("token.key")
    }

    /// The same, in memory.
    pub fn token_key(&self) -> &TokenKey {
        &self.token_key
    }

    /// The back ends' keys.
    pub fn api_key_file(&self) -> PathBuf {
        self.directory.path().join("api.key")
    }

    /// The one key in that file.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// A file in the directory of the keys, for a test that needs another one.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    /// A good token for a device of the default tenant.
    pub fn token(&self, device: &str) -> String {
        self.token_at(device, DEFAULT_AUDIENCE, wall_clock())
    }

    /// A token that was good, and ended an hour ago.
    pub fn expired_token(&self, device: &str) -> String {
        self.token_at(device, DEFAULT_AUDIENCE, wall_clock().minus(2 * HOUR))
    }

    /// A token for another hub.
    pub fn token_for_audience(&self, device: &str, audience: &str) -> String {
        self.token_at(device, audience, wall_clock())
    }

    fn token_at(&self, device: &str, audience: &str, now: UnixMillis) -> String {
        let device = DeviceId::new(device).unwrap();
        mint_device_token(&self.token_key, &device, &TenantId::default(), audience, HOUR, now)
    }
}

/// Now, by this machine's clock.
fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}
