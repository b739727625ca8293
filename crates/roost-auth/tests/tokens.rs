//! What a hub does with good, bad and hostile tokens. Hostile ones are put together by hand, since
//! a JWT library would not make them.

#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roost_auth::{
    AuthError, Credential, DeviceAuthenticator, Identity, LEEWAY, MAX_CREDENTIAL_BYTES,
    TokenAuthenticator, TokenKey, generate_api_key, mint_device_token,
};
use roost_types::{DeviceId, ErrorCode, TenantId, UnixMillis};
use serde_json::{Value, json};

const KEY: &[u8] = b"a test key that has more than 32 bytes";
/// A whole second, so that `exp` needs no rounding.
const NOW: UnixMillis = UnixMillis(1_795_176_000_000);

fn key() -> TokenKey {
    TokenKey::from_content(KEY, "token.key").unwrap()
}

fn verify_at(token: &str, now: UnixMillis) -> Result<Identity, AuthError> {
    let credential = Credential::Token(token.to_owned());
    TokenAuthenticator::new(&key(), "roost").authenticate(Some(&credential), now)
}

fn verify(token: &str) -> Result<Identity, AuthError> {
    verify_at(token, NOW)
}

fn minted(ttl: Duration) -> String {
    let (device, tenant) = (DeviceId::new("thermo-1").unwrap(), TenantId::new("acme").unwrap());
    mint_device_token(&key(), &device, &tenant, "roost", ttl, NOW)
}

/// A correctly signed token with these claims.
fn signed(claims: &Value) -> String {
    signed_with(&Header::new(Algorithm::HS256), claims, KEY)
}

fn signed_with(header: &Header, claims: &Value, key: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key)).unwrap()
}

fn good_claims() -> Value {
    json!({ "sub": "thermo-1", "aud": "roost", "exp": NOW.0 / 1000 + 60 })
}

/// The good claims with one replaced, or removed by `Value::Null`.
fn claims_with(claim: &str, value: Value) -> Value {
    let mut claims = good_claims();
    let map = claims.as_object_mut().unwrap();
    map.remove(claim);
    if !value.is_null() {
        map.insert(claim.to_owned(), value);
    }
    claims
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[test]
fn a_minted_token_proves_device_and_tenant_until_it_expires() {
    let identity = verify(&minted(Duration::from_mins(1))).unwrap();
    assert_eq!(identity.key().to_string(), "acme/thermo-1");
    assert_eq!(identity.expires_at, Some(NOW.plus(Duration::from_mins(1))));
    assert_eq!(verify(&signed(&good_claims())).unwrap().tenant, TenantId::default());
}

#[test]
fn expiry_is_by_the_time_passed_in_with_a_leeway() {
    let token = minted(Duration::from_mins(1));
    let end = NOW.plus(Duration::from_mins(1)).plus(LEEWAY);
    assert!(verify_at(&token, UnixMillis(end.0 - 1)).is_ok());
    let error = verify_at(&token, end).unwrap_err();
    let expired_at = NOW.plus(Duration::from_mins(1));
    assert_eq!(error, AuthError::Expired { expired_at, ago_seconds: 5 });
    assert_eq!(error.code(), ErrorCode::CredentialExpired);
}

#[test]
fn a_token_is_not_taken_before_its_time() {
    let token = signed(&claims_with("nbf", json!(NOW.0 / 1000 + 10)));
    let error = verify(&token).unwrap_err();
    assert!(matches!(error, AuthError::NotYetValid { in_seconds: 10, .. }), "{error}");
    assert!(verify_at(&token, NOW.plus(Duration::from_secs(5))).is_ok());
}

#[test]
fn only_hs256_is_taken() {
    let claims = part(&good_claims());
    for alg in ["none", "None", "NONE", "", "RS256", "ES256", "EdDSA", "HS257", "hs256"] {
        let header = part(&json!({ "alg": alg, "typ": "JWT" }));
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(verify(&token), Err(AuthError::UnsupportedAlgorithm), "{alg}");
        }
    }
    // Rightly signed with the right key, but by a sibling of HS256.
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed_with(&Header::new(alg), &good_claims(), KEY);
        assert_eq!(verify(&token), Err(AuthError::UnsupportedAlgorithm), "{alg:?}");
    }
    let header = part(&json!({ "alg": 7 }));
    assert_eq!(verify(&format!("{header}.{claims}.AAAA")), Err(AuthError::UnsupportedAlgorithm));
}

#[test]
fn a_foreign_key_or_a_changed_token_has_a_bad_signature() {
    let foreign = signed_with(
        &Header::new(Algorithm::HS256),
        &good_claims(),
        b"another key that has more than 32 bytes",
    );
    assert_eq!(verify(&foreign), Err(AuthError::BadSignature));
    assert_eq!(AuthError::BadSignature.code(), ErrorCode::CredentialInvalid);

    let token = signed(&good_claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other_device = part(&claims_with("sub", json!("thermo-2")));
    let changed = format!("{}.{other_device}.{}", parts[0], parts[2]);
    assert_eq!(verify(&changed), Err(AuthError::BadSignature));
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(verify(&unsigned), Err(AuthError::BadSignature));
    let shortened = &token[..token.len() - 3];
    assert_eq!(verify(shortened), Err(AuthError::BadSignature));
}

#[test]
fn each_missing_or_wrong_claim_is_named() {
    for claim in ["sub", "aud", "exp"] {
        let error = verify(&signed(&claims_with(claim, Value::Null))).unwrap_err();
        assert!(matches!(error, AuthError::MissingClaim { claim: c, .. } if c == claim), "{error}");
        assert!(error.to_string().contains(&format!("`{claim}`")), "{error}");
        let error = verify(&signed(&claims_with(claim, json!({ "x": 1 })))).unwrap_err();
        assert!(matches!(error, AuthError::BadClaim { claim: c, .. } if c == claim), "{error}");
    }
    for (claim, value) in [("exp", json!("soon")), ("nbf", json!("now")), ("tenant", json!(7))] {
        let error = verify(&signed(&claims_with(claim, value))).unwrap_err();
        assert!(matches!(error, AuthError::BadClaim { claim: c, .. } if c == claim), "{error}");
    }
}

#[test]
fn times_may_have_fractions_and_extremes() {
    let exp = |value: Value| verify(&signed(&claims_with("exp", value)));
    assert!(exp(json!(1_795_176_060.5)).is_ok());
    assert_eq!(exp(json!(u64::MAX)).unwrap().expires_at, Some(UnixMillis(u64::MAX)));
    assert_eq!(exp(json!(1e300)).unwrap().expires_at, Some(UnixMillis(u64::MAX)));
    assert!(matches!(exp(json!(-5)), Err(AuthError::Expired { .. })));
    assert!(matches!(exp(json!(0)), Err(AuthError::Expired { .. })));
}

#[test]
fn the_audience_is_the_hubs_or_a_list_that_contains_it() {
    let aud = |value: Value| verify(&signed(&claims_with("aud", value)));
    assert!(aud(json!(["other", "roost"])).is_ok());
    for wrong in [json!("other"), json!("Roost"), json!([]), json!(["other", 1])] {
        let error = aud(wrong).unwrap_err();
        assert_eq!(error, AuthError::WrongAudience { expected: "roost".to_owned() });
    }
    let hub = TokenAuthenticator::new(&key(), "plant-7");
    assert!(hub.verify(&signed(&claims_with("aud", json!("plant-7"))), NOW).is_ok());
    assert!(hub.verify(&signed(&good_claims()), NOW).is_err());
}

#[test]
fn ids_obey_the_id_rule() {
    for bad in ["", "a/b", "a b", "{p1}", "ä", &"x".repeat(129)] {
        let error = verify(&signed(&claims_with("sub", json!(bad)))).unwrap_err();
        assert!(matches!(error, AuthError::BadDeviceId(_)), "{bad:?}: {error}");
        let error = verify(&signed(&claims_with("tenant", json!(bad)))).unwrap_err();
        assert!(matches!(error, AuthError::BadTenant(_)), "{bad:?}: {error}");
    }
}

#[test]
fn what_is_no_token_is_malformed_and_never_repeated() {
    let header = part(&json!({ "alg": "HS256" }));
    let not_utf8 = URL_SAFE_NO_PAD.encode([0xff, 0xfe]);
    let critical = part(&json!({ "alg": "HS256", "crit": ["b64"] }));
    for bad in [
        String::new(),
        "sesame".to_owned(),
        "sesame.sesame".to_owned(),
        "sesame.sesame.sesame".to_owned(),
        "sesame.sesame.sesame.sesame".to_owned(),
        "...".to_owned(),
        "..".to_owned(),
        format!("{not_utf8}.sesame.sesame"),
        format!("{header}.sesame.!!!!"),
        format!("{critical}.sesame.AAAA"),
        format!("{}.sesame.AAAA", part(&json!(["HS256"]))),
    ] {
        let error = verify(&bad).unwrap_err();
        assert!(matches!(error, AuthError::Malformed { .. }), "{bad}: {error}");
        assert!(!error.to_string().contains("sesame"), "{error}");
        assert_eq!(error.code(), ErrorCode::CredentialInvalid);
    }
}

#[test]
fn a_signed_payload_that_is_no_object_is_malformed() {
    for payload in [json!([1]), json!("text"), json!(null), json!(7)] {
        let error = verify(&signed(&payload)).unwrap_err();
        assert!(matches!(error, AuthError::Malformed { .. }), "{payload}: {error}");
    }
}

#[test]
fn a_huge_token_is_refused_by_its_length() {
    let token = signed(&claims_with("padding", json!("x".repeat(MAX_CREDENTIAL_BYTES))));
    let error = verify(&token).unwrap_err();
    assert_eq!(error, AuthError::TooLong { bytes: token.len(), max: MAX_CREDENTIAL_BYTES });
}

#[test]
fn without_a_token_the_device_is_told_where_to_put_one() {
    let hub = TokenAuthenticator::new(&key(), "roost");
    let claim = Credential::from_query("device=thermo-1");
    for credential in [None, claim.as_ref()] {
        let error = hub.authenticate(credential, NOW).unwrap_err();
        assert_eq!(error.code(), ErrorCode::CredentialMissing);
        for place in ["Authorization: Bearer", "roost.bearer.", "hello.token"] {
            assert!(error.to_string().contains(place), "{error}");
        }
    }
}

#[test]
fn a_key_file_may_end_its_line_and_must_be_long_enough() {
    let token = minted(Duration::from_mins(1));
    for end in ["\n", "\r\n", "\n\n"] {
        let key = TokenKey::from_content(&[KEY, end.as_bytes()].concat(), "token.key").unwrap();
        assert!(TokenAuthenticator::new(&key, "roost").verify(&token, NOW).is_ok(), "{end:?}");
    }
    let error = TokenKey::from_content(b"only 31 bytes are not enough...\n", "token.key");
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("token.key: the token key has 31 bytes; HS256 needs at least 32"),
        "{error}"
    );
    assert!(TokenKey::from_content(&[0xff; 32], "token.key").is_ok(), "any bytes are a key");

    let line = format!("default default {}\n", generate_api_key());
    let error = TokenKey::from_content(line.as_bytes(), "api.key").unwrap_err().to_string();
    assert!(error.starts_with("api.key: this is a file of API keys"), "{error}");
    assert_eq!(format!("{:?}", key()), "TokenKey(..)");
}

#[test]
fn a_generated_key_survives_its_file() {
    let key = TokenKey::generate();
    let file = [key.as_bytes(), b"\n"].concat();
    let read = TokenKey::from_content(&file, "token.key").unwrap();
    assert_eq!(read.as_bytes(), key.as_bytes());
    assert_ne!(TokenKey::generate().as_bytes(), key.as_bytes());
}
