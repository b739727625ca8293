//! Arguments that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Which hub to call, and how to show what it answers.
#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// Where the hub's gRPC port is: http://, or https:// by TLS.
    #[arg(long, env = "ROOST_SERVER", default_value = "http://127.0.0.1:7050", value_name = "URL")]
    pub(super) server: String,
    /// A file with the certificate of the CA that the hub's comes from, for https. [default: the system's CAs]
    #[arg(long, env = "ROOST_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// A file with an API key of the hub; the first key in it is used.
    #[arg(long, env = "ROOST_API_KEY_FILE", value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// JSON for machines; streams and lists are JSON lines.
    #[arg(long)]
    pub(super) json: bool,
}

/// What to send: nothing, or one of several forms.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PayloadArgs {
    /// JSON, or `@FILE`, or `-` for standard input.
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    pub(super) payload: Option<String>,
    /// The payload is text, not JSON.
    #[arg(long, requires = "payload", conflicts_with = "binary")]
    pub(super) text: bool,
    /// The payload is bytes: of the file, of standard input, or of the argument as it is.
    #[arg(long, requires = "payload")]
    pub(super) binary: bool,
    /// Its media type, where it is not the usual one.
    #[arg(long, requires = "payload", value_name = "TYPE")]
    pub(super) content_type: Option<String>,
}

/// `10s`, `500ms`, `5m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text)
        .ok_or_else(|| "expected a duration such as 500ms, 10s, 5m, 24h or 7d".to_owned())
}

/// `NAME=VALUE`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
