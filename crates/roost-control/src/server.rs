//! The gRPC port: services, health and reflection behind one listener, from start to the end of a
//! shutdown. What the services do is in their own files.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use roost_cluster::StoreHealth;
use roost_proto::FILE_DESCRIPTOR_SET;
use roost_proto::control::v1::cluster_service_server::ClusterServiceServer;
use roost_proto::control::v1::command_service_server::CommandServiceServer;
use roost_proto::control::v1::device_service_server::DeviceServiceServer;
use roost_proto::control::v1::message_service_server::MessageServiceServer;
use roost_proto::convert::MAX_BATCH;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::Control;
use crate::auth::Authenticate;
use crate::cluster::Cluster;
use crate::commands::Commands;
use crate::devices::Devices;
use crate::messages::Messages;
use crate::meter::Metered;
use crate::tls::TlsIncoming;

/// What a request may have beside its payload: 32 headers of 1 KiB and names, and the ids of a batch's
/// devices.
const REQUEST_OVERHEAD: usize = (256 << 10) + MAX_BATCH * 132;
/// The most bytes of headers: a key and what proxies add.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// How many calls one connection may have open: each caller that waits for a command is one.
const MAX_STREAMS: u32 = 4_096;
/// After how much silence a client is pinged.
const PING_AFTER: Duration = Duration::from_secs(30);
/// After how long without an answer to that it is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The descriptors that were compiled in cannot be read.
    #[error("cannot offer reflection: {0}")]
    Reflection(String),
    /// The transport failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

// === impl Control ===

impl Control {
    /// Serves a listener until told to stop, and then ends in order: health turns to `NOT_SERVING` and
    /// streams end with UNAVAILABLE at once, waits for commands are answered with what is known after
    /// half of `drain`, and whatever is left after all of it is dropped. To be called once.
    ///
    /// With `tls`, which must offer h2 by ALPN, there is no way in without TLS.
    ///
    /// Health and reflection are open to everybody, all else to callers with an API key.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let routes = self.routes()?.add_service(health);
        let service =
            Metered::new(routes.prepare(), Arc::clone(&self.metrics), self.request_limit());
        let incoming =
            TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(PING_AFTER));
        let builder = Server::builder()
            .http2_keepalive_interval(Some(PING_AFTER))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_streams(MAX_STREAMS)
            .max_connection_age(self.config.jittered_age());
        let told = stop.cancelled();
        let served = match tls {
            None => Either::Left(builder.serve_with_incoming_shutdown(service, incoming, told)),
            Some(tls) => {
                let incoming = TlsIncoming::new(incoming, tls);
                Either::Right(builder.serve_with_incoming_shutdown(service, incoming, told))
            }
        };
        let ended = tokio::select! {
            biased;
            // The end in order, or a failure.
            ended = served => ended,
            // The end of patience.
            () = self.shut_down(&stop) => {
                tracing::warn!("some calls did not end in time and are dropped");
                Ok(())
            }
            // Never ends; here only to run beside the others.
            () = self.report_health(&reporter, &stop) => Ok(()),
        };
        self.stopping.cancel();
        self.hurry.cancel();
        self.tasks.close();
        if timeout(self.config.store_deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("some acceptances did not end in time and are dropped");
        }
        Ok(ended?)
    }

    fn routes(self: &Arc<Self>) -> Result<Routes, ServeError> {
        let keys = Arc::clone(&self.keys);
        let check = Authenticate { keys };
        let limit = self.request_limit();
        let commands = CommandServiceServer::new(Commands(Arc::clone(self)));
        let devices = DeviceServiceServer::new(Devices(Arc::clone(self)));
        let messages = MessageServiceServer::new(Messages(Arc::clone(self)));
        let cluster = ClusterServiceServer::new(Cluster(Arc::clone(self)));
        let commands = commands.max_decoding_message_size(limit);
        let messages = messages.max_decoding_message_size(limit);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let failed =
            |error: tonic_reflection::server::Error| ServeError::Reflection(error.to_string());
        Ok(Routes::new(InterceptedService::new(commands, check.clone()))
            .add_service(InterceptedService::new(devices, check.clone()))
            .add_service(InterceptedService::new(messages, check.clone()))
            .add_service(InterceptedService::new(cluster, check))
            .add_service(reflection().build_v1().map_err(failed)?)
            // Older tools know only this one.
            .add_service(reflection().build_v1alpha().map_err(failed)?))
    }

    /// The most bytes that a request may have: beyond it nothing is read.
    fn request_limit(&self) -> usize {
        self.config.max_payload + REQUEST_OVERHEAD
    }

    /// Ends when the time for a shutdown is over; before that, tells all who wait to come to an end.
    async fn shut_down(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        self.stopping.cancel();
        let half = self.config.drain / 2;
        tokio::time::sleep(half).await;
        self.hurry.cancel();
        tokio::time::sleep(half).await;
    }

    /// Says that the services serve while the store can be reached and the node does not stop.
    async fn report_health(&self, reporter: &HealthReporter, stop: &CancellationToken) {
        let mut health = self.store.health.clone();
        loop {
            let up = *health.borrow_and_update() == StoreHealth::Up;
            report(reporter, up && !stop.is_cancelled()).await;
            let changed = async {
                if health.changed().await.is_err() {
                    // Nobody tells of the store any more: it stays as it is.
                    std::future::pending::<()>().await;
                }
            };
            stop_or(changed, stop).await;
        }
    }
}

/// Ends with `changed`, or when `stop` is called; after that with `changed` only.
async fn stop_or(changed: impl Future<Output = ()>, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return changed.await;
    }
    tokio::select! {
        biased;
        // The order means nothing: both lead to another look.
        () = stop.cancelled() => {}
        () = changed => {}
    }
}

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in [
        // The whole server.
        "",
        <CommandServiceServer<Commands> as NamedService>::NAME,
        <DeviceServiceServer<Devices> as NamedService>::NAME,
        <MessageServiceServer<Messages> as NamedService>::NAME,
        <ClusterServiceServer<Cluster> as NamedService>::NAME,
    ] {
        reporter.set_service_status(service, status).await;
    }
}
