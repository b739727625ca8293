//! Who is calling: the API key of a request becomes a `Caller`, or the call ends here. What keys are
//! and where they are kept is in `roost-auth`.

use std::sync::Arc;

use roost_auth::{ApiKeys, Caller};
use roost_types::ErrorCode;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::refusal::Refusal;

/// Stands before every service but health and reflection.
#[derive(Debug, Clone)]
pub(crate) struct Authenticate {
    pub(crate) keys: Arc<ApiKeys>,
}

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization");
        let caller = self
            .keys
            .authenticate_bearer(header.map(tonic::metadata::MetadataValue::as_bytes))
            .map_err(Refusal::from)?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The caller that [`Authenticate`] found.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Refusal> {
    let caller = request.extensions().get::<Caller>().cloned();
    // A service that was mounted without the check must not act for anybody.
    caller
        .ok_or_else(|| Refusal::new(ErrorCode::CredentialMissing, "the call was not authenticated"))
}
