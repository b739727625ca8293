//! `DeviceService`: who is online, where, since when; and sending somebody away. The stream of
//! presence events is in `watch.rs`, what a device looks like in `shown.rs`.

use std::sync::Arc;

use roost_auth::Caller;
use roost_cluster::{DeviceFilter, DeviceRecord, NodeEvent, PageRequest};
use roost_proto::control::v1::device_service_server::DeviceService;
use roost_proto::control::v1::{self, Presence};
use roost_proto::convert::{
    Violation, device_id, history_limit, node_id_filter, page_size, presence_filter,
    session_id_filter,
};
use roost_types::{DeviceKey, ErrorCode};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::auth::caller;
use crate::commands::{at_page_token, page_token};
use crate::refusal::{Refusal, all_of};
use crate::{Control, history, shown, watch};

/// What a device is told where the operator says nothing.
const DISCONNECT_REASON: &str = "disconnected by the operator";
/// The most bytes that the reason in a WebSocket close frame may have.
const MAX_CLOSE_REASON: usize = 123;

/// The service, for any number of callers.
#[derive(Debug, Clone)]
pub(crate) struct Devices(pub(crate) Arc<Control>);

#[tonic::async_trait]
impl DeviceService for Devices {
    type WatchDevicesStream = ReceiverStream<Result<v1::WatchDevicesResponse, Status>>;

    async fn get_device(
        &self,
        request: Request<v1::GetDeviceRequest>,
    ) -> Result<Response<v1::GetDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let device = device_id(&request.get_ref().device_id).map_err(Refusal::from)?;
        let record = self.find(&DeviceKey::new(caller.tenant, device)).await?;
        Ok(Response::new(v1::GetDeviceResponse { device: Some(shown::device(&record)) }))
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.list(&caller, request.get_ref()).await?))
    }

    async fn watch_devices(
        &self,
        request: Request<v1::WatchDevicesRequest>,
    ) -> Result<Response<Self::WatchDevicesStream>, Status> {
        let caller = caller(&request)?;
        let stream = watch::open(&self.0, caller.tenant, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn disconnect_device(
        &self,
        request: Request<v1::DisconnectDeviceRequest>,
    ) -> Result<Response<v1::DisconnectDeviceResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.disconnect(caller, request.into_inner()).await?))
    }

    async fn get_device_history(
        &self,
        request: Request<v1::GetDeviceHistoryRequest>,
    ) -> Result<Response<v1::GetDeviceHistoryResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.get_ref();
        let (device, limit, ()) =
            all_of((device_id(&request.device_id), history_limit(request.limit), Ok(())))?;
        let device = DeviceKey::new(caller.tenant, device);
        let entries = self.0.read(self.0.store.sessions.history(&device, limit)).await?;
        Ok(Response::new(v1::GetDeviceHistoryResponse {
            entries: entries.into_iter().map(history::entry).collect(),
        }))
    }
}

// === impl Devices ===

impl Devices {
    async fn find(&self, device: &DeviceKey) -> Result<DeviceRecord, Refusal> {
        let found = self.0.read(self.0.store.sessions.get(device)).await?;
        found.ok_or_else(|| {
            let what = "no device of this id has been connected within the time the hub remembers";
            Refusal::new(ErrorCode::NotFound, what)
        })
    }

    async fn list(
        &self,
        caller: &Caller,
        request: &v1::ListDevicesRequest,
    ) -> Result<v1::ListDevicesResponse, Refusal> {
        let (size, presence, node) = all_of((
            page_size(request.page_size),
            presence_filter(request.presence),
            node_id_filter(&request.node_id),
        ))?;
        if node.is_some() && presence == Some(Presence::Offline) {
            // Connected to that node and not connected: nobody.
            return Ok(v1::ListDevicesResponse::default());
        }
        let online = presence.map(|presence| presence == Presence::Online);
        let filter = DeviceFilter { online: online.or(node.is_some().then_some(true)), node };
        let token = page_token(&request.page_token);
        let page = PageRequest { size, token };
        let listed = self.0.store.sessions.list(&caller.tenant, &filter, &page);
        let listed = self.0.read(listed).await.map_err(at_page_token)?;
        Ok(v1::ListDevicesResponse {
            devices: listed.items.iter().map(shown::device).collect(),
            next_page_token: listed.next.unwrap_or_default(),
        })
    }

    async fn disconnect(
        &self,
        caller: Caller,
        request: v1::DisconnectDeviceRequest,
    ) -> Result<v1::DisconnectDeviceResponse, Refusal> {
        let (device, only, reason) = all_of((
            device_id(&request.device_id),
            session_id_filter(&request.session_id),
            close_reason(&request.reason),
        ))?;
        let device = DeviceKey::new(caller.tenant, device);
        let record = self.find(&device).await?;
        let session =
            record.session.filter(|session| only.is_none_or(|only| only == session.session));
        let Some(session) = session else {
            return Ok(v1::DisconnectDeviceResponse { session: None });
        };
        let event =
            NodeEvent::Disconnect { device, session: session.session, reason: reason.into() };
        self.0.change(self.0.store.bus.send(&session.node, &event)).await?;
        Ok(v1::DisconnectDeviceResponse { session: Some(shown::session(&session)) })
    }
}

fn close_reason(given: &str) -> Result<&str, Violation> {
    if given.is_empty() {
        return Ok(DISCONNECT_REASON);
    }
    if given.len() > MAX_CLOSE_REASON {
        let what = format!("has {} bytes; at most {MAX_CLOSE_REASON} are allowed", given.len());
        return Err(Violation::new(ErrorCode::FieldInvalid, "reason", what));
    }
    Ok(given)
}
