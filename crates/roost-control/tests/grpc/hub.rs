//! A control node on a free port, with clients for two tenants.

use std::sync::Arc;

use roost_auth::ApiKeys;
use roost_cluster::{HubClock, MemoryHub, Store, StoreSettings, Switchboard};
use roost_control::{Control, ControlConfig};
use roost_proto::control::v1::cluster_service_client::ClusterServiceClient;
use roost_proto::control::v1::command_service_client::CommandServiceClient;
use roost_proto::control::v1::device_service_client::DeviceServiceClient;
use roost_proto::control::v1::message_service_client::MessageServiceClient;
use roost_telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::edge::{Edge, node};

/// The key of the tenant `default`.
pub(crate) const OURS: &str = "key-of-the-default-tenant";
/// The key of the tenant `other`.
pub(crate) const THEIRS: &str = "key-of-the-other-tenant";

pub(crate) struct Hub {
    pub(crate) control: Arc<Control>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) telemetry: Telemetry,
    pub(crate) stop: CancellationToken,
    pub(crate) channel: Channel,
    pub(crate) tasks: JoinSet<()>,
}

#[derive(Clone)]
pub(crate) struct Key(pub(crate) Option<MetadataValue<Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Authorised = InterceptedService<Channel, Key>;

impl Hub {
    pub(crate) async fn start() -> Self {
        Self::with(StoreSettings::default(), |_| {}, |_| {}).await
    }

    /// With settings, a configuration and a control node's store that are changed first.
    pub(crate) async fn with(
        settings: StoreSettings,
        configure: impl FnOnce(&mut ControlConfig),
        tamper: impl FnOnce(&mut Store),
    ) -> Self {
        let hub = MemoryHub::new(settings, Arc::new(HubClock::new()));
        let (edge, control) = (node("edge"), node("control"));
        let edge = Edge::start(hub.node(edge.clone()), edge).await;
        let mut store = hub.node(control.clone());
        tamper(&mut store);
        let mut config = ControlConfig::new(control);
        // The store in memory answers at once; a machine that is busy with other things may not.
        config.store_deadline = std::time::Duration::from_secs(60);
        configure(&mut config);
        let board = Arc::new(Switchboard::new(Arc::clone(&store.bus)));
        let events = store.bus.take_events().unwrap();
        let keys = format!("ours default {OURS}\ntheirs other {THEIRS}\n");
        let keys = ApiKeys::parse(&keys, "test keys").unwrap();
        let telemetry = Telemetry::new("0.0.0");
        let control = Control::new(config, store, Arc::clone(&board), keys, &telemetry);
        board.attach(Arc::clone(&control) as _);
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { board.run(events, CancellationToken::new()).await });
        let served = Arc::clone(&control).serve(listener, None, stop.clone());
        tasks.spawn(async move { served.await.unwrap() });
        let endpoint = Endpoint::try_from(format!("http://{address}")).unwrap();
        Self { control, edge, telemetry, stop, channel: endpoint.connect_lazy(), tasks }
    }

    fn authorised(&self, key: Option<&str>) -> Authorised {
        let value = key.map(|key| format!("Bearer {key}").parse().unwrap());
        InterceptedService::new(self.channel.clone(), Key(value))
    }

    pub(crate) fn commands(&self) -> CommandServiceClient<Authorised> {
        self.commands_of(Some(OURS))
    }

    pub(crate) fn commands_of(&self, key: Option<&str>) -> CommandServiceClient<Authorised> {
        CommandServiceClient::new(self.authorised(key))
    }

    pub(crate) fn devices(&self) -> DeviceServiceClient<Authorised> {
        self.devices_of(OURS)
    }

    pub(crate) fn devices_of(&self, key: &str) -> DeviceServiceClient<Authorised> {
        DeviceServiceClient::new(self.authorised(Some(key)))
    }

    pub(crate) fn messages(&self) -> MessageServiceClient<Authorised> {
        self.messages_of(OURS)
    }

    pub(crate) fn messages_of(&self, key: &str) -> MessageServiceClient<Authorised> {
        MessageServiceClient::new(self.authorised(Some(key)))
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Authorised> {
        ClusterServiceClient::new(self.authorised(Some(OURS)))
    }

    /// The value of a series that counts; 0 where there is none yet.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let value = self.telemetry.value(series).unwrap_or(0.0);
        // Counts are whole numbers, and print as such.
        value.to_string().parse().unwrap()
    }
}

/// The machine-readable reason of a refusal; every refusal has one.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "roost.dev");
    info.reason
}

/// The fields that a refusal names.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let request = status.get_details_bad_request();
    let violations = request.map(|request| request.field_violations);
    let fields = violations.into_iter().flatten();
    fields.map(|violation| violation.field).collect()
}
