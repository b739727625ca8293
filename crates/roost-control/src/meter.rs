//! Counts every RPC, by method and status, around all services. What the metrics mean is in
//! `roost-telemetry`.

use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use roost_telemetry::metrics::labels::{GrpcCode, GrpcMethod};
use roost_telemetry::metrics::{ControlMetrics, RpcGuard};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{BoxFuture, Service};

/// A service, counted.
#[derive(Debug, Clone)]
pub(crate) struct Metered<S> {
    inner: S,
    metrics: Arc<ControlMetrics>,
}

// === impl Metered ===

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, metrics: Arc<ControlMetrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = GrpcMethod::from_path(request.uri().path());
        // Dropped before it is finished, the guard counts a call that its caller gave up.
        let guard = self.metrics.rpc_started(method);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(count(answer.await?, guard)) })
    }
}

/// Finishes the guard with the status: of the headers where there is nothing but a status, else of
/// the trailers once they are on their way.
fn count(response: Response<Body>, guard: RpcGuard) -> Response<Body> {
    if let Some(code) = code(response.headers()) {
        guard.finish(code);
        return response;
    }
    let mut guard = Some(guard);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(code) = frame.trailers_ref().and_then(code)
                && let Some(guard) = guard.take()
            {
                guard.finish(code);
            }
            frame
        }))
    })
}

fn code(headers: &HeaderMap) -> Option<GrpcCode> {
    let code = Status::from_header_map(headers)?.code();
    Some(GrpcCode::from_number(code.into()))
}
