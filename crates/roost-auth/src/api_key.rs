//! How back ends prove who they are: API keys. One file format serves both sides, so that the file
//! `roost token` writes can be given to the server and to a client.
//!
//! One key per line; `#` starts a comment line; blank lines are ignored:
//!
//! ```text
//! rk_…                      a key alone: caller `default` of tenant `default`
//! billing acme rk_…         name, tenant, key
//! ```
//!
//! The server keeps SHA-256 digests only. Two lines may share a name: that is how a key is rotated.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roost_types::{DeviceId, TenantId};
use sha2::{Digest as _, Sha256};

use crate::key_file::{self, KeyFileError};
use crate::{AuthError, MAX_CREDENTIAL_BYTES};

/// The fewest characters of a key: 16 of base64 are 96 bits.
const MIN_KEY_CHARACTERS: usize = 16;

/// What a line may be, for error messages.
const LINE_FORMAT: &str = "a line is `<key>` or `<name> <tenant> <key>`";

/// A back end, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name, as it stands in the key file and in the `from` of what it publishes.
    pub name: Arc<str>,
    /// The tenant that it may act for.
    pub tenant: TenantId,
}

/// The API keys of a hub, as digests.
pub struct ApiKeys {
    keys: Vec<(Sha256Digest, Caller)>,
    /// Whom everybody is taken for, key or not: `--auth insecure` without a key file.
    anyone: Option<Caller>,
}

type Sha256Digest = [u8; 32];

/// A line of a key file that has a key.
struct Line<'a> {
    number: usize,
    name: &'a str,
    tenant: Option<&'a str>,
    key: &'a str,
}

// === impl ApiKeys ===

impl ApiKeys {
    /// Reads the server's key file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Self::parse(&key_file::read_text(path)?, &path.display().to_string())
    }

    /// Parses the content of a key file; `file` names it in errors.
    pub fn parse(content: &str, file: &str) -> Result<Self, KeyFileError> {
        let mut keys: Vec<(Sha256Digest, Caller)> = Vec::new();
        for line in lines(content, file) {
            let line = line?;
            let wrong = |problem: String| KeyFileError::content(file, line.number, problem);
            // A caller's name obeys the same rule as every other id.
            DeviceId::new(line.name).map_err(|error| wrong(name_problem(&error.to_string())))?;
            let tenant = line.tenant.map_or_else(|| Ok(TenantId::default()), TenantId::new);
            let tenant = tenant.map_err(|error| wrong(error.to_string()))?;
            let digest = digest(line.key);
            if keys.iter().any(|(known, _)| *known == digest) {
                return Err(wrong(
                    "repeats a key of an earlier line; each caller needs its own".to_owned(),
                ));
            }
            keys.push((digest, Caller { name: line.name.into(), tenant }));
        }
        if keys.is_empty() {
            return Err(KeyFileError::content(file, 0, format!("has no key; {LINE_FORMAT}")));
        }
        Ok(Self { keys, anyone: None })
    }

    /// One key for caller `default` of tenant `default`: what `demo` uses.
    pub fn single(key: &str) -> Result<Self, KeyFileError> {
        Self::parse(key, "the API key")
    }

    /// Believes every caller, with any key or none, to be `anyone` of tenant `default`: for
    /// `--auth insecure`, on loopback.
    pub fn insecure() -> Self {
        let anyone = Caller { name: "anyone".into(), tenant: TenantId::default() };
        Self { keys: vec![], anyone: Some(anyone) }
    }

    /// Whose key this is. Takes the same time whichever key matches, and if none does.
    pub fn authenticate(&self, key: &str) -> Result<Caller, AuthError> {
        if key.len() > MAX_CREDENTIAL_BYTES {
            return Err(AuthError::TooLong { bytes: key.len(), max: MAX_CREDENTIAL_BYTES });
        }
        let presented = digest(key);
        let mut found = None;
        for (known, caller) in &self.keys {
            if same(known, &presented) {
                found = Some(caller);
            }
        }
        found.cloned().ok_or(AuthError::UnknownApiKey)
    }

    /// Whose key the value of an `authorization` entry carries; `None` is a call without one.
    pub fn authenticate_bearer(&self, authorization: Option<&[u8]>) -> Result<Caller, AuthError> {
        if let Some(anyone) = &self.anyone {
            return Ok(anyone.clone());
        }
        let value = authorization.ok_or(AuthError::Missing {
            expected: "send `authorization: Bearer <key>` with one of the hub's API keys",
        })?;
        self.authenticate(crate::bearer(value)?)
    }

    /// How many keys there are; zero only for [`ApiKeys::insecure`].
    pub fn count(&self) -> usize {
        self.keys.len()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(_, caller)| caller)).finish()
    }
}

/// Reads the key that a client sends: the first of the file.
pub fn read_client_api_key(path: &Path) -> Result<String, KeyFileError> {
    client_api_key(&key_file::read_text(path)?, &path.display().to_string())
}

/// The key that a client sends: the first in the content of a key file, which `file` names.
pub fn client_api_key(content: &str, file: &str) -> Result<String, KeyFileError> {
    let line = lines(content, file).next();
    let empty = || KeyFileError::content(file, 0, format!("has no key; {LINE_FORMAT}"));
    Ok(line.ok_or_else(empty)??.key.to_owned())
}

/// A new random key: `rk_` and 256 bits in base64url, 46 characters in all.
///
/// # Panics
/// If the operating system has no randomness to give, as nothing safe could follow.
pub fn generate_api_key() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    format!("rk_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The lines of a file that have keys.
fn lines<'a>(
    content: &'a str,
    file: &'a str,
) -> impl Iterator<Item = Result<Line<'a>, KeyFileError>> {
    let numbered = content.lines().enumerate().map(|(i, text)| (i + 1, text.trim()));
    let kept = numbered.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    kept.map(move |(number, text)| {
        parse_line(number, text).map_err(|problem| KeyFileError::content(file, number, problem))
    })
}

fn parse_line(number: usize, text: &str) -> Result<Line<'_>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = match words[..] {
        [key] => Line { number, name: "default", tenant: None, key },
        [name, tenant, key] => Line { number, name, tenant: Some(tenant), key },
        _ => return Err(format!("has {} words; {LINE_FORMAT}", words.len())),
    };
    if line.key.len() < MIN_KEY_CHARACTERS {
        return Err(format!(
            "the key has {} characters; at least {MIN_KEY_CHARACTERS} are needed (`roost token` makes one)",
            line.key.len()
        ));
    }
    if line.key.len() > MAX_CREDENTIAL_BYTES || !line.key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "the key must be visible ASCII characters, at most {MAX_CREDENTIAL_BYTES} of them"
        ));
    }
    Ok(line)
}

/// The id rule's message speaks of a device id.
fn name_problem(problem: &str) -> String {
    problem.replacen("device id", "the caller's name", 1)
}

fn digest(key: &str) -> Sha256Digest {
    Sha256::digest(key.as_bytes()).into()
}

/// Compares every byte, whatever the first difference: an early end would tell how far it agreed.
fn same(a: &Sha256Digest, b: &Sha256Digest) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "rk_0123456789abcdef";
    const TWO: &str = "another-key-of-some-length";

    #[test]
    fn each_line_is_a_caller() {
        let content = format!("# back ends\n\n{ONE}\r\n  billing\tacme  {TWO}\n");
        let keys = ApiKeys::parse(&content, "api.keys").unwrap();
        assert_eq!(keys.count(), 2);
        let one = keys.authenticate(ONE).unwrap();
        assert_eq!((&*one.name, one.tenant.as_str()), ("default", "default"));
        let two = keys.authenticate_bearer(Some(format!("Bearer {TWO}").as_bytes())).unwrap();
        assert_eq!((&*two.name, two.tenant.as_str()), ("billing", "acme"));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let keys = ApiKeys::single(ONE).unwrap();
        for wrong in ["", "rk_0123456789abcdeF", "rk_0123456789abcde", &format!("{ONE} ")] {
            assert_eq!(keys.authenticate(wrong), Err(AuthError::UnknownApiKey), "{wrong:?}");
        }
        let huge = "x".repeat(MAX_CREDENTIAL_BYTES + 1);
        assert!(matches!(keys.authenticate(&huge), Err(AuthError::TooLong { .. })));
        assert!(matches!(keys.authenticate_bearer(None), Err(AuthError::Missing { .. })));
        let no_scheme = keys.authenticate_bearer(Some(ONE.as_bytes()));
        assert!(matches!(no_scheme, Err(AuthError::Malformed { .. })));
        let not_text = keys.authenticate_bearer(Some(b"Bearer \xff\xff"));
        assert!(matches!(not_text, Err(AuthError::Malformed { .. })));
    }

    #[test]
    fn a_bad_file_is_named_with_the_line_and_what_is_right() {
        let secret = "sssssssssssssssssssss";
        let cases = [
            (String::new(), "api.keys: has no key"),
            ("# only a comment\n".to_owned(), "api.keys: has no key"),
            (format!("\n{secret} two\n"), "api.keys, line 2: has 2 words; a line is `<key>`"),
            ("tooshort".to_owned(), "api.keys, line 1: the key has 8 characters; at least 16"),
            (
                format!("na/me acme {secret}"),
                "api.keys, line 1: the caller's name has the character '/'",
            ),
            (format!("name ac/me {secret}"), "api.keys, line 1: tenant id has the character '/'"),
            (format!("{secret}\nb t {secret}"), "api.keys, line 2: repeats a key"),
            (format!("{secret}ä"), "api.keys, line 1: the key must be visible ASCII"),
        ];
        for (content, expected) in cases {
            let error = ApiKeys::parse(&content, "api.keys").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{content:?}: {error}");
            assert!(!error.contains(secret), "{error}");
        }
        let error = ApiKeys::read(Path::new("/nonexistent/api.keys")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/api.keys"), "{error}");
    }

    #[test]
    fn a_client_reads_the_first_key_of_the_same_file() {
        let content = format!("# mine\nbilling acme {TWO}\n{ONE}\n");
        assert_eq!(client_api_key(&content, "f").unwrap(), TWO);
        assert_eq!(client_api_key(ONE, "f").unwrap(), ONE);
        let error = client_api_key("# nothing\n", "f").unwrap_err().to_string();
        assert!(error.starts_with("f: has no key"), "{error}");
    }

    #[test]
    fn generated_keys_are_random_and_fit_the_file() {
        let (a, b) = (generate_api_key(), generate_api_key());
        assert_ne!(a, b);
        assert!(a.starts_with("rk_") && a.len() == 46, "{a}");
        assert!(ApiKeys::single(&a).unwrap().authenticate(&a).is_ok());
    }

    #[test]
    fn debug_shows_callers_and_no_keys() {
        let keys = ApiKeys::single(ONE).unwrap();
        let text = format!("{keys:?}");
        assert!(text.contains("default") && !text.contains("0123"), "{text}");
    }
}
