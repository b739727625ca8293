//! Who takes part: tenants, devices, the keys that let them in. Two tenants share their devices' names,
//! so that what crosses shows.

use std::path::PathBuf;
use std::time::Duration;

use roost_auth::{DEFAULT_AUDIENCE, TokenKey, generate_api_key, mint_device_token};
use roost_checker::{Event, Kind};
use roost_types::{DeviceId, DeviceKey, TenantId, UnixMillis};
use tempfile::TempDir;

use crate::journal::wall_ms;

/// The tenants of a run: most devices are of the first.
pub const TENANTS: [&str; 2] = ["default", "other"];
/// Of so many devices one is of the second tenant.
const OTHER: usize = 5;
/// How long a token is good for.
const TOKEN_TTL: Duration = Duration::from_secs(6 * 3_600);

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Which of [`TENANTS`].
    pub tenant: usize,
    /// Its id.
    pub device: String,
}

/// What hub, devices and back ends need to trust each other, in files that go with the value.
#[derive(Debug)]
pub struct Keys {
    directory: TempDir,
    token_key: TokenKey,
    of_back_ends: [String; 2],
}

// === impl Name ===

impl Name {
    /// The devices of a run: `d-0` and so on, every fifth in the second tenant, under a name that the
    /// first one has too.
    pub fn number(number: usize) -> Self {
        let other = number % OTHER == OTHER - 1;
        let device = format!("d-{}", if other { number - 1 } else { number });
        Self { tenant: usize::from(other), device }
    }

    /// A device of the first tenant that is not one of the fleet.
    pub fn extra(device: &str) -> Self {
        Self { tenant: 0, device: device.to_owned() }
    }

    /// Its tenant.
    pub fn tenant(&self) -> &'static str {
        TENANTS[self.tenant]
    }

    /// An event about it.
    pub fn event(&self, kind: Kind) -> Event<'_> {
        Event::of_device(kind, self.tenant(), &self.device)
    }

    /// As the store has it.
    pub fn key(&self) -> DeviceKey {
        DeviceKey::new(tenant_id(self.tenant()), device_id(&self.device))
    }
}

// === impl Keys ===

impl Keys {
    /// Makes keys and writes the hub's files.
    pub fn generate() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("roost-faults-keys-").tempdir()?;
        let of_back_ends = [generate_api_key(), generate_api_key()];
        let keys = Self { directory, token_key: TokenKey::generate(), of_back_ends };
        std::fs::write(keys.token_key_file(), keys.token_key.as_bytes())?;
        let [first, second] = &keys.of_back_ends;
        let lines = format!("first {} {first}\nsecond {} {second}\n", TENANTS[0], TENANTS[1]);
        std::fs::write(keys.api_key_file(), lines)?;
        Ok(keys)
    }

    /// What signs device tokens.
    pub fn token_key_file(&self) -> PathBuf {
        self.directory.path().join("token.key")
    }

    /// The back ends' keys.
    pub fn api_key_file(&self) -> PathBuf {
        self.directory.path().join("api.key")
    }

    /// The key of a tenant's back ends.
    pub fn api_key(&self, tenant: usize) -> &str {
        &self.of_back_ends[tenant]
    }

    /// A device's token.
    pub fn token(&self, name: &Name) -> String {
        let (device, tenant) = (device_id(&name.device), tenant_id(name.tenant()));
        let now = UnixMillis(wall_ms());
        mint_device_token(&self.token_key, &device, &tenant, DEFAULT_AUDIENCE, TOKEN_TTL, now)
    }
}

fn device_id(id: &str) -> DeviceId {
    DeviceId::new(id).expect("names of a run are ids")
}

fn tenant_id(id: &str) -> TenantId {
    TenantId::new(id).expect("names of a run are ids")
}
