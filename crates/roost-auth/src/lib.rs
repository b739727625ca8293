#![doc = include_str!("../README.md")]

mod api_key;
mod authenticator;
mod credential;
mod error;
mod key_file;
mod token;

pub use api_key::{ApiKeys, Caller, client_api_key, generate_api_key, read_client_api_key};
pub use authenticator::{DeviceAuthenticator, Identity, InsecureAuthenticator};
pub use credential::{BEARER_SUBPROTOCOL_PREFIX, Credential, MAX_CREDENTIAL_BYTES, bearer};
pub use error::AuthError;
pub use key_file::KeyFileError;
pub use token::{DEFAULT_AUDIENCE, LEEWAY, TokenAuthenticator, TokenKey, mint_device_token};
