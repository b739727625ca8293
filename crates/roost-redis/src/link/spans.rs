//! The span of a store operation, under that of whatever asks for it. Outside a recorded trace there is
//! none.

use std::fmt::Display;

use roost_telemetry::metrics::labels::{Label as _, RedisCommand};
use roost_telemetry::trace::{self, SpanKind};

use super::master::Master;

/// Does `work`, an exchange with `master`, within its span.
pub(super) async fn spanned<T, E: Display>(
    master: &Master,
    command: RedisCommand,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = trace::child(command.as_str(), SpanKind::Client);
    // No child of its own: the client has none to make.
    let answer = work.await;
    if span.is_recorded() {
        span.set("db.system.name", "redis");
        span.set("db.operation.name", command.as_str());
        span.set("server.address", &master.address.to_string());
        if let Err(error) = &answer {
            span.fail(error.to_string());
        }
    }
    answer
}
