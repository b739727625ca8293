//! What a caller presents, and where it is looked for. Whether it is believed is decided by an
//! authenticator. Tokens are never taken from the URL, which ends up in logs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::AuthError;

/// The most bytes of a token or key that are looked at. A token with four claims has about 250.
pub const MAX_CREDENTIAL_BYTES: usize = 4096;

/// Opens the subprotocol by which browsers, which cannot set headers, present a token:
/// `roost.bearer.` and the token in base64url without padding. It is never echoed.
pub const BEARER_SUBPROTOCOL_PREFIX: &str = "roost.bearer.";

/// What a device presents. Printing one never shows a token.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// A bearer token.
    Token(String),
    /// A device that merely says who it is: `?device=ID&tenant=ID`. Only the insecure
    /// authenticator takes it.
    Claim {
        /// The device id claimed.
        device: String,
        /// The tenant claimed.
        tenant: Option<String>,
    },
}

// === impl Credential ===

impl Credential {
    /// From the value of an `Authorization` header.
    pub fn from_authorization(value: &[u8]) -> Result<Self, AuthError> {
        Ok(Self::Token(bearer(value)?.to_owned()))
    }

    /// From the value of one `Sec-WebSocket-Protocol` header, a comma-separated list; `None` if it
    /// offers no `roost.bearer.…`.
    pub fn from_subprotocols(value: &[u8]) -> Result<Option<Self>, AuthError> {
        let prefix = BEARER_SUBPROTOCOL_PREFIX.as_bytes();
        let mut offers = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let Some(encoded) = offers.find_map(|offer| offer.strip_prefix(prefix)) else {
            return Ok(None);
        };
        // Four characters of base64 carry three bytes.
        check_length(encoded.len(), MAX_CREDENTIAL_BYTES.div_ceil(3) * 4)?;
        let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| AuthError::Malformed {
            problem: "what follows `roost.bearer.` is not base64url; encode the token in base64url without padding",
        })?;
        let token = String::from_utf8(decoded).map_err(|_| AuthError::Malformed {
            problem: "what follows `roost.bearer.` decodes to bytes that are not text",
        })?;
        Self::from_hello(&token).map(Some)
    }

    /// From the `token` of the device's `hello`.
    pub fn from_hello(token: &str) -> Result<Self, AuthError> {
        check_length(token.len(), MAX_CREDENTIAL_BYTES)?;
        Ok(Self::Token(token.to_owned()))
    }

    /// From the query of the request's URL: a claim, never a token; `None` if it claims no device.
    /// Ids need no percent-encoding, so an encoded one is refused later by the id rule.
    pub fn from_query(query: &str) -> Option<Self> {
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
        };
        Some(Self::Claim { device: value("device")?, tenant: value("tenant") })
    }

    /// The first credential of an upgrade request: `authorization` before `subprotocols` (one item
    /// per header) before the claim in `query`. `None` if there is none, which leaves
    /// [`Credential::from_hello`].
    pub fn from_request<'a>(
        authorization: Option<&[u8]>,
        subprotocols: impl IntoIterator<Item = &'a [u8]>,
        query: Option<&str>,
    ) -> Result<Option<Self>, AuthError> {
        if let Some(value) = authorization {
            return Self::from_authorization(value).map(Some);
        }
        for value in subprotocols {
            if let Some(credential) = Self::from_subprotocols(value)? {
                return Ok(Some(credential));
            }
        }
        Ok(query.and_then(Self::from_query))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Claim { device, tenant } => {
                f.debug_struct("Claim").field("device", device).field("tenant", tenant).finish()
            }
        }
    }
}

/// The secret in `Bearer <secret>`, the form that both devices and back ends send.
pub fn bearer(value: &[u8]) -> Result<&str, AuthError> {
    const RIGHT: &str = "an authorization header reads `Bearer <token>`";
    let malformed = || AuthError::Malformed { problem: RIGHT };
    let text = std::str::from_utf8(value).map_err(|_| malformed())?.trim();
    let (scheme, secret) = text.split_once(' ').ok_or_else(malformed)?;
    let secret = secret.trim_start();
    if !scheme.eq_ignore_ascii_case("bearer") || secret.contains(char::is_whitespace) {
        return Err(malformed());
    }
    check_length(secret.len(), MAX_CREDENTIAL_BYTES)?;
    Ok(secret)
}

fn check_length(bytes: usize, max: usize) -> Result<(), AuthError> {
    if bytes > max { Err(AuthError::TooLong { bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Credential {
        Credential::Token(text.to_owned())
    }

    #[test]
    fn authorization_takes_bearer_only() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c ", " Bearer a.b.c"] {
            assert_eq!(
                Credential::from_authorization(good.as_bytes()),
                Ok(token("a.b.c")),
                "{good}"
            );
        }
        for bad in ["", "Bearer", "Bearer ", "a.b.c", "Basic a.b.c", "Bearer a b"] {
            let error = Credential::from_authorization(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, AuthError::Malformed { .. }), "{bad:?}: {error}");
        }
        let error = Credential::from_authorization(b"Bearer \xff\xfe").unwrap_err();
        assert!(matches!(error, AuthError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_huge_credential_is_refused_by_its_length() {
        let huge = "x".repeat(MAX_CREDENTIAL_BYTES + 1);
        let too_long = |result: Result<Credential, AuthError>| {
            matches!(result, Err(AuthError::TooLong { max: MAX_CREDENTIAL_BYTES, .. }))
        };
        assert!(too_long(Credential::from_authorization(format!("Bearer {huge}").as_bytes())));
        assert!(too_long(Credential::from_hello(&huge)));
        let encoded = format!("roost.bearer.{}", URL_SAFE_NO_PAD.encode(&huge).repeat(3));
        let result = Credential::from_subprotocols(encoded.as_bytes());
        assert!(matches!(result, Err(AuthError::TooLong { .. })), "{result:?}");
    }

    #[test]
    fn a_subprotocol_carries_a_token_beside_the_real_one() {
        let offer = format!("roost.v1.json, roost.bearer.{}", URL_SAFE_NO_PAD.encode("a.b.c"));
        assert_eq!(Credential::from_subprotocols(offer.as_bytes()), Ok(Some(token("a.b.c"))));
        assert_eq!(Credential::from_subprotocols(b"roost.v1.json"), Ok(None));
        for bad in [&b"roost.bearer.a+b/"[..], b"roost.bearer._w", b"roost.bearer.YQ=="] {
            let error = Credential::from_subprotocols(bad).unwrap_err();
            assert!(matches!(error, AuthError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn the_url_carries_claims_and_never_tokens() {
        let claim = |device: &str, tenant: Option<&str>| Credential::Claim {
            device: device.to_owned(),
            tenant: tenant.map(str::to_owned),
        };
        assert_eq!(Credential::from_query("hello=auto&device=a-1"), Some(claim("a-1", None)));
        assert_eq!(Credential::from_query("device=a&tenant=t"), Some(claim("a", Some("t"))));
        assert_eq!(Credential::from_query("token=a.b.c&access_token=a.b.c"), None);
        assert_eq!(Credential::from_query(""), None);
    }

    #[test]
    fn headers_come_before_the_claim() {
        let offers = [b"roost.v1.json".as_slice(), b"roost.bearer.YS5iLmM".as_slice()];
        let request = Credential::from_request(Some(b"Bearer x.y.z"), offers, Some("device=d"));
        assert_eq!(request, Ok(Some(token("x.y.z"))));
        assert_eq!(
            Credential::from_request(None, offers, Some("device=d")),
            Ok(Some(token("a.b.c")))
        );
        let claim = Credential::from_request(None, [], Some("device=d")).unwrap();
        assert!(matches!(claim, Some(Credential::Claim { .. })));
        assert_eq!(Credential::from_request(None, [], None), Ok(None));
    }

    #[test]
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", token("secret")), "Token(..)");
    }
}
