//! Device tokens: HS256 JWTs, minted with and checked against one shared key. Claims: `sub` the
//! device id, `aud` the hub's audience (a string or a list that contains it), `exp`, and optionally
//! `nbf` and `tenant` (else `default`). Where tokens are looked for is in `credential.rs`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use roost_types::{DeviceId, TenantId, UnixMillis};
use serde::Serialize;
use serde_json::Value;

use crate::authenticator::tenant_or_default;
use crate::key_file::{self, KeyFileError};
use crate::{AuthError, Credential, DeviceAuthenticator, Identity, MAX_CREDENTIAL_BYTES};

/// The `aud` of a hub where none is configured.
pub const DEFAULT_AUDIENCE: &str = "roost";

/// By how much the clocks of who signs and of the hub may differ: a token is taken this long after
/// `exp` and before `nbf`.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The fewest bytes of a key: HS256 is as strong as its 256-bit digest (RFC 7518, 3.2).
const MIN_KEY_BYTES: usize = 32;

/// The key that signs device tokens. Printing one does not show it.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

/// Believes a device that presents a token signed with the key.
pub struct TokenAuthenticator {
    key: DecodingKey,
    audience: String,
}

/// A token's header or claims. Not a struct: serde would take a JSON array for one, and the first
/// claim of a wrong type would hide which one it is.
type Object = serde_json::Map<String, Value>;

/// What [`mint_device_token`] writes.
#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    tenant: &'a str,
}

// === impl TokenKey ===

impl TokenKey {
    /// Reads a key file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_content(&key_file::read(path)?, &path.display().to_string())
    }

    /// Takes the content of a key file, any bytes, without the line ends at its end; `file` names
    /// it in errors.
    pub fn from_content(content: &[u8], file: &str) -> Result<Self, KeyFileError> {
        let line_ends =
            content.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let key = &content[..content.len() - line_ends];
        if key.split(u8::is_ascii_whitespace).any(|word| word.starts_with(b"rk_")) {
            let problem = "this is a file of API keys; a token key is made by `roost token key`";
            return Err(KeyFileError::content(file, 0, problem.to_owned()));
        }
        if key.len() < MIN_KEY_BYTES {
            let problem = format!(
                "the token key has {} bytes; HS256 needs at least {MIN_KEY_BYTES}, chosen at random",
                key.len()
            );
            return Err(KeyFileError::content(file, 0, problem));
        }
        Ok(Self(key.to_vec()))
    }

    /// A new random key: 43 characters of base64url, which carry 256 bits and can stand in a file.
    ///
    /// # Panics
    /// If the operating system has no randomness to give, as nothing safe could follow.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system provides randomness");
        Self(URL_SAFE_NO_PAD.encode(bytes).into_bytes())
    }

    /// The key, to be written to a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// A token that proves `device` to a hub with this key and audience until `now + ttl`, in whole
/// seconds, rounded up.
///
/// # Panics
/// Never: an HMAC key signs everything.
pub fn mint_device_token(
    key: &TokenKey,
    device: &DeviceId,
    tenant: &TenantId,
    audience: &str,
    ttl: Duration,
    now: UnixMillis,
) -> String {
    let claims = MintedClaims {
        sub: device.as_str(),
        aud: audience,
        exp: now.plus(ttl).0.div_ceil(1000),
        iat: now.0 / 1000,
        tenant: tenant.as_str(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&key.0))
        .expect("strings and numbers are JSON, and an HMAC key signs everything")
}

// === impl TokenAuthenticator ===

impl TokenAuthenticator {
    /// Takes tokens signed with `key` whose `aud` is, or contains, `audience`.
    pub fn new(key: &TokenKey, audience: impl Into<String>) -> Self {
        Self { key: DecodingKey::from_secret(&key.0), audience: audience.into() }
    }

    /// Who the token says its bearer is, if it is to be believed at `now`.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Identity, AuthError> {
        let (message, signature) = check_header(token)?;
        // Not the library's `decode`: it asks the system clock, and reports any fault in a claim
        // as one in the token. The claims are checked below, by hub time, and named.
        let genuine = jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            &self.key,
            Algorithm::HS256,
        )
        .map_err(|_| malformed("the token's signature is not base64url without padding"))?;
        if !genuine {
            return Err(AuthError::BadSignature);
        }
        let mut claims = decode_claims(message)?;
        let device = required_text("sub", claims.remove("sub"), "the device id")?;
        self.check_audience(claims.remove("aud"))?;
        let expires_at = check_times(claims.remove("exp"), claims.remove("nbf"), now)?;
        let tenant = claims
            .remove("tenant")
            .map(|value| text("tenant", value, "a tenant id"))
            .transpose()?;
        Ok(Identity {
            tenant: tenant_or_default(tenant.as_deref())?,
            device: DeviceId::new(device).map_err(AuthError::BadDeviceId)?,
            expires_at: Some(expires_at),
        })
    }

    fn check_audience(&self, aud: Option<Value>) -> Result<(), AuthError> {
        const RIGHT: &str = "the hub's audience, a string or a list of strings";
        let ours = |value: &Value| value.as_str() == Some(self.audience.as_str());
        match aud {
            None => Err(AuthError::MissingClaim { claim: "aud", expected: RIGHT }),
            Some(value @ Value::String(_)) if ours(&value) => Ok(()),
            Some(Value::Array(list)) if list.iter().any(ours) => Ok(()),
            Some(Value::String(_) | Value::Array(_)) => {
                Err(AuthError::WrongAudience { expected: self.audience.clone() })
            }
            Some(_) => Err(AuthError::BadClaim { claim: "aud", expected: RIGHT }),
        }
    }
}

impl DeviceAuthenticator for TokenAuthenticator {
    fn authenticate(
        &self,
        credential: Option<&Credential>,
        now: UnixMillis,
    ) -> Result<Identity, AuthError> {
        match credential {
            Some(Credential::Token(token)) => self.verify(token, now),
            Some(Credential::Claim { .. }) | None => Err(AuthError::Missing {
                expected: "present a token as `Authorization: Bearer <token>`, as subprotocol \
                           `roost.bearer.<base64url>`, or in `hello.token`; never in the URL",
            }),
        }
    }
}

impl fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthenticator")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Refuses what needs no key to be refused (length, shape, algorithm), and splits the token into
/// what is signed and the signature.
fn check_header(token: &str) -> Result<(&str, &str), AuthError> {
    if token.len() > MAX_CREDENTIAL_BYTES {
        return Err(AuthError::TooLong { bytes: token.len(), max: MAX_CREDENTIAL_BYTES });
    }
    let shape = || malformed("a token is a JWT: three base64url parts with dots between them");
    let (message, signature) = token.rsplit_once('.').ok_or_else(shape)?;
    let (header, claims) = message.split_once('.').ok_or_else(shape)?;
    if claims.contains('.') {
        return Err(shape());
    }
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| malformed("the token's header is not base64url without padding"))?;
    let header: Object = serde_json::from_slice(&header)
        .map_err(|_| malformed("the token's header is not a JSON object"))?;
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return Err(AuthError::UnsupportedAlgorithm);
    }
    if header.contains_key("crit") {
        return Err(malformed("the token's header has `crit`, and no extension is understood"));
    }
    Ok((message, signature))
}

/// The claims of a token whose signature was right.
fn decode_claims(message: &str) -> Result<Object, AuthError> {
    let (_, claims) = message.split_once('.').expect("check_header found two parts");
    let claims = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| malformed("the token's claims are not base64url without padding"))?;
    serde_json::from_slice(&claims)
        .map_err(|_| malformed("the token's claims are not a JSON object"))
}

fn malformed(problem: &'static str) -> AuthError {
    AuthError::Malformed { problem }
}

/// Checks `exp` and `nbf`; answers when the token expires.
fn check_times(
    exp: Option<Value>,
    nbf: Option<Value>,
    now: UnixMillis,
) -> Result<UnixMillis, AuthError> {
    const RIGHT: &str = "a time in seconds since 1970, as a number";
    let exp = exp.ok_or(AuthError::MissingClaim { claim: "exp", expected: RIGHT })?;
    let bad = |claim| AuthError::BadClaim { claim, expected: RIGHT };
    let expires_at = numeric_date(&exp).ok_or_else(|| bad("exp"))?;
    if now >= expires_at.plus(LEEWAY) {
        let ago_seconds = now.since(expires_at).as_secs();
        return Err(AuthError::Expired { expired_at: expires_at, ago_seconds });
    }
    let Some(nbf) = nbf else {
        return Ok(expires_at);
    };
    let not_before = numeric_date(&nbf).ok_or_else(|| bad("nbf"))?;
    if now < not_before.minus(LEEWAY) {
        let in_seconds = not_before.since(now).as_secs();
        return Err(AuthError::NotYetValid { not_before, in_seconds });
    }
    Ok(expires_at)
}

/// A JWT time, which may have a fraction; the far future stops at the greatest time there is.
fn numeric_date(value: &Value) -> Option<UnixMillis> {
    if let Some(seconds) = value.as_u64() {
        return Some(UnixMillis(seconds.saturating_mul(1000)));
    }
    let seconds = value.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates: before 1970 is 1970, and beyond u64 is its end"
    )]
    let millis = (seconds * 1000.0) as u64;
    Some(UnixMillis(millis))
}

fn required_text(
    claim: &'static str,
    value: Option<Value>,
    expected: &'static str,
) -> Result<String, AuthError> {
    text(claim, value.ok_or(AuthError::MissingClaim { claim, expected })?, expected)
}

fn text(claim: &'static str, value: Value, expected: &'static str) -> Result<String, AuthError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(AuthError::BadClaim { claim, expected }),
    }
}
