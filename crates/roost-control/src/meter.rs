//! Around all services: counts every RPC, by method and status, and says in the hub's own words what
//! the gRPC library refused by itself. What the metrics mean is in `roost-telemetry`.

use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use roost_telemetry::metrics::labels::{GrpcCode, GrpcMethod};
use roost_telemetry::metrics::{ControlMetrics, RpcGuard};
use roost_types::ErrorCode;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};

use crate::refusal::Refusal;

/// A service, counted.
#[derive(Debug, Clone)]
pub(crate) struct Metered<S> {
    inner: S,
    metrics: Arc<ControlMetrics>,
    /// The most bytes that a request may have.
    limit: usize,
}

// === impl Metered ===

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, metrics: Arc<ControlMetrics>, limit: usize) -> Self {
        Self { inner, metrics, limit }
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
        let limit = self.limit;
        Box::pin(async move { Ok(count(explain(answer.await?, limit), guard)) })
    }
}

/// What the gRPC library refused by itself, in the hub's own words: a request over the limit, one that
/// cannot be read, a method that is not there. None of them reached a service that could give a reason.
fn explain(response: Response<Body>, limit: usize) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let message = status.message();
    let refusal = match status.code() {
        // A refusal of a service has details.
        _ if !status.details().is_empty() => return response,
        Code::OutOfRange => {
            let what = format!("the request has more than {limit} bytes, all in all");
            Refusal::new(ErrorCode::PayloadTooLarge, what)
        }
        Code::Internal => {
            let what = format!("the request is not one of this method: {message}");
            Refusal::new(ErrorCode::BadMessage, what)
        }
        Code::Unimplemented if message.is_empty() => {
            let what = "this hub has no such service or method; server reflection lists them";
            Refusal::new(ErrorCode::UnknownMethod, what)
        }
        _ => return response,
    };
    Status::from(refusal).into_http()
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
