//! A store that is out of reach or does not answer.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{
    Batch, Cancelled, CommandFilter, Enqueued, Mailboxes, Offer, Page, PageRequest, Report,
    Reported, Store, StoreError, StoreSettings, SweepFinding,
};
use roost_proto::control::v1::{CommandState, GetCommandRequest};
use roost_types::{Command, CommandId, DeviceKey, NodeId, SessionId, TenantId};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::commands::{command, waiting};
use crate::hub::{Hub, reason};

/// Mailboxes that answer everything with one error, or never.
#[derive(Debug, Clone)]
struct Broken(Option<StoreError>);

impl Broken {
    async fn fail<T>(&self) -> Result<T, StoreError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Mailboxes for Broken {
    async fn enqueue(&self, _: &DeviceKey, _: Offer<'_>) -> Result<Enqueued, StoreError> {
        self.fail().await
    }
    async fn read(&self, _: &DeviceKey, _: SessionId, _: u64) -> Result<Batch, StoreError> {
        self.fail().await
    }
    async fn report(
        &self,
        _: &DeviceKey,
        _: SessionId,
        _: &CommandId,
        _: &Report,
    ) -> Result<Reported, StoreError> {
        self.fail().await
    }
    async fn cancel(&self, _: &DeviceKey, _: &CommandId) -> Result<Cancelled, StoreError> {
        self.fail().await
    }
    async fn get(
        &self,
        _: &DeviceKey,
        _: &CommandId,
        _: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError> {
        self.fail().await
    }
    async fn list(
        &self,
        _: &DeviceKey,
        _: &CommandFilter,
        _: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.fail().await
    }
    async fn dead(&self, _: &TenantId, _: &PageRequest) -> Result<Page<Command>, StoreError> {
        self.fail().await
    }
    async fn settle_dead(
        &self,
        _: &DeviceKey,
        _: &CommandId,
        _: &CommandId,
    ) -> Result<bool, StoreError> {
        self.fail().await
    }
    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError> {
        self.fail().await
    }
}

async fn broken(error: Option<StoreError>) -> Hub {
    let tamper = |store: &mut Store| store.mailboxes = Arc::new(Broken(error));
    let hasty = |config: &mut roost_control::ControlConfig| {
        config.store_deadline = Duration::from_millis(50);
    };
    Hub::with(StoreSettings::default(), hasty, tamper).await
}

#[tokio::test]
async fn the_caller_learns_whether_the_command_may_be_there() {
    for (error, expected, code) in [
        (Some(StoreError::NotSent("down".into())), "NOT_ENQUEUED", Code::Unavailable),
        (Some(StoreError::Stale), "NOT_ENQUEUED", Code::Unavailable),
        (Some(StoreError::Indeterminate("lost".into())), "INDETERMINATE", Code::Unavailable),
        (None, "INDETERMINATE", Code::Unavailable),
        (Some(StoreError::Full("oom".into())), "STORE_FULL", Code::ResourceExhausted),
    ] {
        let hub = broken(error.clone()).await;
        let request = waiting("c1", "echo", CommandState::Succeeded, 60_000);
        let status = hub.commands().send_command(request).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (code, expected), "{error:?}");
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(hub.metric("roost_commands_in_flight"), 0);
    }
}

#[tokio::test]
async fn a_read_that_fails_is_merely_unavailable() {
    for error in [None, Some(StoreError::NotSent("down".into()))] {
        let hub = broken(error).await;
        let request = GetCommandRequest { device_id: "d1".into(), command_id: "c1".into() };
        let status = hub.commands().get_command(request).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "UNAVAILABLE"));
    }
    let hub = broken(Some(StoreError::Corrupt("odd".into()))).await;
    let status = hub.commands().send_command(command("", "echo")).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Internal, "INTERNAL"));
}
