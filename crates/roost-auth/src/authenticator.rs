//! From a credential to an [`Identity`]: the seam behind which the ways to prove one live (tokens in
//! `token.rs`; later JWKS and client certificates), and the insecure way. The edge sees only the
//! seam and the identity.

use std::fmt;

use roost_types::{DeviceId, DeviceKey, TenantId, UnixMillis};

use crate::{AuthError, Credential};

/// Who a device is, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant that the device belongs to.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// When the proof ends; `None` if it does not. A connection outlives it only by its holder's
    /// leave.
    pub expires_at: Option<UnixMillis>,
}

/// A way to prove who a device is.
///
/// Runs on the event loop: an implementation computes, and waits for nothing. One that needs keys
/// from elsewhere fetches them beforehand.
pub trait DeviceAuthenticator: fmt::Debug + Send + Sync + 'static {
    /// Who presents this, at hub time `now`. `None` is a device that presented nothing.
    fn authenticate(
        &self,
        credential: Option<&Credential>,
        now: UnixMillis,
    ) -> Result<Identity, AuthError>;
}

/// Believes every device (`--auth insecure`): for trying out, on loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct InsecureAuthenticator;

// === impl Identity ===

impl Identity {
    /// The device's name on the hub.
    pub fn key(&self) -> DeviceKey {
        DeviceKey::new(self.tenant.clone(), self.device.clone())
    }
}

// === impl InsecureAuthenticator ===

impl DeviceAuthenticator for InsecureAuthenticator {
    fn authenticate(
        &self,
        credential: Option<&Credential>,
        _now: UnixMillis,
    ) -> Result<Identity, AuthError> {
        let Some(Credential::Claim { device, tenant }) = credential else {
            return Err(AuthError::Missing {
                expected: "this hub runs with --auth insecure and takes `?device=ID` in the URL",
            });
        };
        Ok(Identity {
            tenant: tenant_or_default(tenant.as_deref())?,
            device: DeviceId::new(device).map_err(AuthError::BadDeviceId)?,
            expires_at: None,
        })
    }
}

/// The tenant named, or `default` where none is.
pub(crate) fn tenant_or_default(tenant: Option<&str>) -> Result<TenantId, AuthError> {
    tenant.map_or_else(|| Ok(TenantId::default()), TenantId::new).map_err(AuthError::BadTenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticate(query: &str) -> Result<Identity, AuthError> {
        InsecureAuthenticator.authenticate(Credential::from_query(query).as_ref(), UnixMillis(0))
    }

    #[test]
    fn a_claim_is_believed_if_its_ids_are_right() {
        let identity = authenticate("device=thermo-1").unwrap();
        assert_eq!(identity.key().to_string(), "default/thermo-1");
        assert_eq!(identity.expires_at, None);
        assert_eq!(authenticate("device=d&tenant=acme").unwrap().tenant.as_str(), "acme");
        assert!(matches!(authenticate("device=a/b"), Err(AuthError::BadDeviceId(_))));
        assert!(matches!(authenticate("device="), Err(AuthError::BadDeviceId(_))));
        assert!(matches!(authenticate("device=d&tenant="), Err(AuthError::BadTenant(_))));
    }

    #[test]
    fn a_token_is_not_a_claim() {
        let token = Credential::Token("a.b.c".to_owned());
        let error = InsecureAuthenticator.authenticate(Some(&token), UnixMillis(0)).unwrap_err();
        assert!(error.to_string().contains("?device=ID"), "{error}");
        assert!(matches!(authenticate("x=y"), Err(AuthError::Missing { .. })));
    }
}
