//! The way to the hub, and what its errors mean for the exit code.

use std::future::Future;

use roost_client::Trust;
use roost_client::backend::{Backend, BackendError};
use tonic::{Code, Status};

use super::args::ClientArgs;
use super::{Exit, Failure};

/// What is sent as a key where none is given: a hub without keys (`--auth insecure`) takes it.
const NO_KEY: &str = "none";

/// Reads the key and connects.
pub(super) async fn connect(args: &ClientArgs) -> Result<Backend, Failure> {
    let key = args.api_key_file.as_deref();
    let key = key.map(roost_auth::read_client_api_key).transpose();
    let key = key.map_err(Failure::usage)?;
    let key = key.as_deref().unwrap_or(NO_KEY);
    let trust = args.ca_file.as_deref().map(Trust::file).transpose().map_err(Failure::usage)?;
    Ok(Backend::connect_trusting(&args.server, key, trust.as_ref()).await?)
}

/// Runs a command that waits for the network.
pub(super) fn block_on(
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        BackendError::from(status).into()
    }
}

impl From<BackendError> for Failure {
    /// The hub's reason, its words, and each field that they do not name.
    fn from(error: BackendError) -> Self {
        let mut text = error.to_string();
        for violation in &error.fields {
            if !text.contains(&violation.description) {
                text = format!("{text}\n  {}: {}", violation.field, violation.description);
            }
        }
        if error.code == Code::Unauthenticated {
            text.push_str("\ngive one of the hub's keys by --api-key-file or ROOST_API_KEY_FILE");
        }
        // What cannot be right was refused before the hub was asked: a wrong URL, say.
        match error.code {
            Code::Unavailable => Self::unavailable(text),
            Code::InvalidArgument if error.reason.is_empty() => Self::usage(text),
            _ => Self::failed(text),
        }
    }
}
