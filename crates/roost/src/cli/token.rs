//! `roost token`: keys for the hub, and tokens for devices. What is in them is in `roost-auth`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use roost_auth::{DEFAULT_AUDIENCE, TokenKey, generate_api_key, mint_device_token};
use roost_types::{DeviceId, TenantId, UnixMillis};

use super::args::duration;
use super::output::Output;
use super::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a key that signs device tokens, for --token-key-file.
    Key(KeyArgs),
    /// Make an API key for a back end, for --api-key-file of the hub and of clients.
    ApiKey(ApiKeyArgs),
    /// Make a token for a device.
    Device(DeviceArgs),
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Write it to this new file, readable by you only, instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ApiKeyArgs {
    /// The back end's name, as it stands in what it publishes.
    #[arg(long, default_value = "default")]
    name: DeviceId,
    /// The tenant that it may act for.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// Write it to this new file, readable by you only, instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// The device's id.
    device: DeviceId,
    /// The key that signs: the hub's token key file.
    #[arg(long, alias = "token-key-file", value_name = "FILE")]
    key_file: PathBuf,
    /// The device's tenant.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// How long it is good for.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
    ttl: Duration,
    /// The hub that it is for: its auth.audience.
    #[arg(long, default_value = DEFAULT_AUDIENCE)]
    audience: String,
}

pub(super) fn run(command: &TokenCommand) -> Result<Exit, Failure> {
    let output = Output::new(false);
    match command {
        TokenCommand::Key(args) => {
            let key = TokenKey::generate();
            let text = String::from_utf8_lossy(key.as_bytes()).into_owned();
            put(output, args.out.as_deref(), &text)?;
        }
        TokenCommand::ApiKey(args) => {
            let line = format!("{} {} {}", args.name, args.tenant, generate_api_key());
            put(output, args.out.as_deref(), &line)?;
        }
        TokenCommand::Device(args) => {
            let key = TokenKey::read(&args.key_file).map_err(Failure::usage)?;
            let (device, tenant) = (&args.device, &args.tenant);
            let token =
                mint_device_token(&key, device, tenant, &args.audience, args.ttl, wall_clock());
            output.line(token)?;
        }
    }
    Ok(Exit::Ok)
}

fn put(output: Output, file: Option<&Path>, line: &str) -> Result<(), Failure> {
    let Some(file) = file else {
        return Ok(output.line(line)?);
    };
    write_secret(file, line).map_err(|error| {
        Failure::failed(format!("cannot write the new file {}: {error}", file.display()))
    })?;
    Ok(output.line(format!("wrote {}", file.display()))?)
}

/// Writes a new file that only its owner can read; one that is there is never overwritten.
pub(super) fn write_secret(file: &Path, line: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{line}")
}

/// Now, by this machine's clock.
pub(super) fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
