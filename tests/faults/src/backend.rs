//! The back ends of a run: each command is sent with an id of its own until the answer is certain, and
//! every question and answer is written down.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_checker::{Event, Kind, monotonic_us};
use roost_client::backend::{Backend, BackendError};
use roost_proto::control::v1 as pb;
use roost_types::CommandState;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::journal::Journal;
use crate::names::{Keys, Name};
use crate::rng::Rng;

/// How long one call may take beyond what it waits for.
const CALL: Duration = Duration::from_secs(5);
/// Between two attempts, in ms: the least, and the most after the first; it grows to five times that.
const PAUSE: (u64, u64) = (50, 400);

/// A command that a back end wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// For whom.
    pub device: Name,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it is over, in ms of hub time.
    pub expires_ms: u64,
    /// How long to wait for its end in each call; zero does not wait.
    pub wait: Duration,
    /// Its ordering key.
    pub key: String,
    /// After how many attempts it is dead; 0 for never.
    pub max_attempts: u32,
}

/// A command that was accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Whose.
    pub device: Name,
    /// Its id.
    pub id: String,
    /// Whether a failover may take it.
    pub volatile: bool,
    /// When that was asked for, on the run's clock: the answer may come long after what it tells of.
    pub at: u64,
}

/// How a wish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was accepted; the state of the last answer.
    Accepted(CommandState),
    /// It was refused for sure, and not tried again.
    Refused,
    /// Its time was over first.
    GivenUp,
}

/// An answer that accepts a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Where the command stood.
    pub state: CommandState,
    /// Whether it had been accepted before.
    pub existed: bool,
}

/// The back ends, one connection a tenant to each control node.
#[derive(Debug)]
pub struct Backends {
    /// By control node, then tenant.
    connections: Vec<[Backend; 2]>,
    journal: Arc<Journal>,
    rng: Arc<Rng>,
    accepted: Mutex<Vec<Accepted>>,
}

// === impl Wish ===

impl Wish {
    /// A command that lives for `ttl` and that nobody waits for.
    pub fn new(device: &Name, id: String, journal: &Journal, ttl: Duration) -> Self {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self {
            device: device.clone(),
            id,
            name: "work".to_owned(),
            expires_ms: journal.hub_ms() + ttl,
            wait: Duration::ZERO,
            key: String::new(),
            max_attempts: 0,
        }
    }

    /// What tells its payload from every other one.
    pub fn body(&self) -> String {
        format!("{}/{}/{}", self.device.tenant(), self.device.device, self.id)
    }

    fn request(&self) -> pb::SendCommandRequest {
        let text = pb::payload::Body::Text(self.body());
        let expires = prost_types::Timestamp {
            seconds: i64::try_from(self.expires_ms / 1_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(self.expires_ms % 1_000).unwrap_or(0) * 1_000_000,
        };
        let mut request = pb::SendCommandRequest {
            device_id: self.device.device.clone(),
            command_id: self.id.clone(),
            name: self.name.clone(),
            payload: Some(pb::Payload { body: Some(text), content_type: String::new() }),
            expiry: Some(pb::send_command_request::Expiry::ExpireTime(expires)),
            ..Default::default()
        };
        if !self.wait.is_zero() {
            request.wait_until = pb::CommandState::Succeeded.into();
            request.wait_timeout = prost_types::Duration::try_from(self.wait).ok();
        }
        request.ordering_key.clone_from(&self.key);
        request.max_attempts = self.max_attempts;
        request
    }
}

// === impl Backends ===

impl Backends {
    /// Back ends of these control nodes, `host:port` each; they connect with their first call.
    pub fn new(
        controls: &[String],
        keys: &Keys,
        journal: Arc<Journal>,
        rng: Arc<Rng>,
    ) -> anyhow::Result<Self> {
        let connect = |address: &String| {
            let first = Backend::connect_lazy(address, keys.api_key(0))?;
            let second = Backend::connect_lazy(address, keys.api_key(1))?;
            Ok::<_, BackendError>([first, second])
        };
        let connections = controls.iter().map(connect).collect::<Result<_, _>>()?;
        Ok(Self { connections, journal, rng, accepted: Mutex::default() })
    }

    /// A connection of a tenant to this control node.
    pub fn of(&self, control: usize, tenant: usize) -> &Backend {
        &self.connections[control][tenant]
    }

    /// A connection of a tenant to any control node.
    pub fn any(&self, tenant: usize) -> &Backend {
        self.of(self.rng.index(self.connections.len()), tenant)
    }

    /// Everything that was accepted, once each.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().clone()
    }

    /// Sends a command until the answer is certain or its time is over, each time to any control node.
    pub async fn send(&self, wish: &Wish) -> Sent {
        for attempt in 1.. {
            let control = self.rng.index(self.connections.len());
            match self.try_send(control, wish).await {
                Ok(taken) => return Sent::Accepted(taken.state),
                Err(error) if !may_repeat(&error) => return Sent::Refused,
                Err(_) if self.journal.hub_ms() >= wish.expires_ms => return Sent::GivenUp,
                Err(_) => {}
            }
            let most = PAUSE.1 * u64::min(attempt, 5);
            sleep(Duration::from_millis(self.rng.between(PAUSE.0, most))).await;
        }
        unreachable!("every command has an end")
    }

    /// Sends a command once, by this control node.
    pub async fn try_send(&self, control: usize, wish: &Wish) -> Result<Taken, BackendError> {
        let (at, body) = (monotonic_us(), wish.body());
        let event = wish.device.event(Kind::Send).command(&wish.id).body(&body);
        let expires_ms = Some(wish.expires_ms);
        let op = self.journal.invoke(Event { expires_ms, key: wish.key.as_str().into(), ..event });
        let mut commands = self.of(control, wish.device.tenant).commands();
        let call = timeout(CALL + wish.wait, commands.send_command(wish.request()));
        let answer = match call.await {
            Ok(answer) => answer.map_err(BackendError::from),
            Err(_) => Err(timed_out()),
        };
        match answer {
            Ok(answer) => Ok(self.note_accepted(op, at, wish, answer.get_ref())),
            Err(error) => {
                let refused = is_certain(&error);
                let (kind, count) = if refused {
                    (Kind::Fail, &self.journal.refused)
                } else {
                    (Kind::Unknown, &self.journal.unknown)
                };
                count.add();
                self.journal.answer(kind, op);
                Err(error)
            }
        }
    }

    fn note_accepted(
        &self,
        op: u64,
        at: u64,
        wish: &Wish,
        answer: &pb::SendCommandResponse,
    ) -> Taken {
        let volatile = answer.durability() <= pb::Durability::Memory;
        let state = answer.command.as_ref().map_or(CommandState::Queued, state_of);
        self.journal.add(Event {
            created: Some(!answer.already_existed),
            volatile,
            state: state.as_str().into(),
            ..Event::answer(Kind::Ok, op)
        });
        self.journal.accepted.add();
        if volatile {
            self.journal.volatile.add();
        }
        let (device, id) = (wish.device.clone(), wish.id.clone());
        self.accepted.lock().push(Accepted { device, id, volatile, at });
        Taken { state, existed: answer.already_existed }
    }

    /// Cancels a command, once.
    pub async fn cancel(&self, device: &Name, id: &str) {
        let op = self.journal.invoke(device.event(Kind::Cancel).command(id));
        let request = pb::CancelCommandRequest {
            device_id: device.device.clone(),
            command_id: id.to_owned(),
        };
        let mut commands = self.any(device.tenant).commands();
        let event = match timeout(CALL, commands.cancel_command(request)).await {
            Ok(Ok(answer)) => {
                let command = answer.into_inner().command;
                let state = command.as_ref().map_or(CommandState::Queued, state_of);
                Event { state: state.as_str().into(), ..Event::answer(Kind::Ok, op) }
            }
            // Whether it was done is not asked again: either is right.
            _ => Event::answer(Kind::Unknown, op),
        };
        self.journal.add(event);
    }

    /// A command as it is now; `None` if the hub does not know it.
    pub async fn look(&self, device: &Name, id: &str) -> anyhow::Result<Option<CommandState>> {
        let since = monotonic_us();
        let request =
            pb::GetCommandRequest { device_id: device.device.clone(), command_id: id.to_owned() };
        let mut commands = self.any(device.tenant).commands();
        match timeout(CALL, commands.get_command(request)).await? {
            Ok(answer) => {
                let command = answer.into_inner().command;
                let state = command.as_ref().map_or(CommandState::Queued, state_of);
                self.journal.observe(device, id, state, since);
                Ok(Some(state))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(BackendError::from(status).into()),
        }
    }

    /// The session that the hub says a device has.
    pub async fn session(&self, device: &Name) -> anyhow::Result<Option<String>> {
        let request = pb::GetDeviceRequest { device_id: device.device.clone() };
        let mut devices = self.any(device.tenant).devices();
        let answer = timeout(CALL, devices.get_device(request)).await?;
        let answer = answer.map_err(BackendError::from)?.into_inner();
        Ok(answer.device.and_then(|device| device.session).map(|session| session.session_id))
    }

    /// Where everything is written down.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}

/// The state of a command as the checker names it.
pub fn state_of(command: &pb::Command) -> CommandState {
    let name = command.state().as_str_name();
    let state = name.strip_prefix("COMMAND_STATE_").and_then(CommandState::parse);
    state.unwrap_or(CommandState::Queued)
}

/// Whether the hub said for sure that nothing happened and nothing will.
fn is_certain(error: &BackendError) -> bool {
    let hub = !error.reason.is_empty();
    match error.code {
        Code::Unavailable => error.reason == "NOT_ENQUEUED",
        Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => false,
        _ => hub,
    }
}

fn may_repeat(error: &BackendError) -> bool {
    !is_certain(error) || error.reason == "NOT_ENQUEUED" || error.code == Code::ResourceExhausted
}

fn timed_out() -> BackendError {
    BackendError {
        code: Code::DeadlineExceeded,
        reason: String::new(),
        message: "the call was given up".to_owned(),
        fields: vec![],
        retry_after: None,
    }
}
