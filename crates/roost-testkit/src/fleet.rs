//! Many devices that answer every command by themselves with what it carried, and never reconnect:
//! an end of one of their connections is something that a test can see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roost_client::device::{Closed, Welcome};
use roost_types::{CommandId, Payload, ResultStatus, SessionId};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::device::TestDevice;
use crate::keys::Keys;

/// How many connect at once: the hub admits devices at a rate, and a test is not to exceed it.
const AT_ONCE: usize = 20;

/// Connected devices. Dropping it cuts their connections.
#[derive(Debug)]
pub struct Fleet {
    devices: Vec<(String, SessionId)>,
    tasks: JoinSet<(String, Closed)>,
    answered: Arc<AtomicUsize>,
}

// === impl Fleet ===

impl Fleet {
    /// Connects `count` devices, `{prefix}-0` and so on, to the edges in turn.
    pub async fn connect(urls: &[String], keys: &Keys, prefix: &str, count: usize) -> Self {
        let answered = Arc::new(AtomicUsize::new(0));
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = JoinSet::new();
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            let token = keys.token(&name);
            let url = urls[number % urls.len()].clone();
            let permits = Arc::clone(&permits);
            opening.spawn(async move {
                let _permit = permits.acquire_owned().await.unwrap();
                (name, TestDevice::connect(&url, &token).await)
            });
        }
        let mut fleet = Self { devices: vec![], tasks: JoinSet::new(), answered };
        while let Some(opened) = opening.join_next().await {
            let (name, device) = opened.unwrap();
            let Welcome { session_id, .. } = &device.welcome;
            fleet.devices.push((name.clone(), *session_id));
            let answered = Arc::clone(&fleet.answered);
            fleet.tasks.spawn(async move { (name, answer(device, &answered).await) });
        }
        fleet
    }

    /// Each device with the session that it was given when it connected.
    pub fn devices(&self) -> &[(String, SessionId)] {
        &self.devices
    }

    /// How many commands they have answered in all.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// The next end of one of the connections: whose, and how. Waits for as long as all are open.
    ///
    /// Cancel safe.
    pub async fn ended(&mut self) -> (String, Closed) {
        match self.tasks.join_next().await {
            Some(ended) => ended.unwrap(),
            None => std::future::pending().await,
        }
    }

    /// Those whose connection has ended so far.
    pub fn ends(&mut self) -> Vec<(String, Closed)> {
        let mut ends = vec![];
        while let Some(ended) = self.tasks.try_join_next() {
            ends.push(ended.unwrap());
        }
        ends
    }
}

/// Answers commands until the connection ends.
async fn answer(mut device: TestDevice, answered: &AtomicUsize) -> Closed {
    loop {
        match device.connection.next().await {
            Ok(ToDevice::Command { command_id, payload, .. }) => {
                device.connection.queue(&done(command_id, payload));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            // An outage of the store: the device tries again, as docs/device-protocol.md asks.
            Ok(ToDevice::Error { command_id: Some(command_id), retryable: true, .. }) => {
                device.connection.queue(&done(command_id, None));
            }
            Ok(_) => {}
            Err(closed) => return closed,
        }
    }
}

fn done(command_id: CommandId, payload: Option<Payload>) -> FromDevice {
    let status = ResultStatus::Succeeded;
    FromDevice::Result { id: Some(1), command_id, status, payload, error: None, trace: None }
}
