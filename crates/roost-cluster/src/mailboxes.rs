//! The `Mailboxes` seam: commands that wait for devices, and what becomes of them.
//!
//! A mailbox keeps its unfinished commands in the order accepted (`seq`) and dispatches a prefix of
//! it: what is with the session is always older than what is queued. Hence an edge that remembers
//! the last `seq` it delivered knows from a push's `prev` whether it missed one.

use async_trait::async_trait;
use roost_types::{
    Command, CommandId, CommandResult, CommandSpec, CommandState, DeviceKey, NodeId, Progress,
    SessionId, TenantId, UnixMillis,
};

use crate::{Durability, NodeRef, Page, PageRequest, StoreError};

/// The decision to hand a command to a live session now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The node to push to.
    pub node: NodeRef,
    /// The session to deliver to.
    pub session: SessionId,
    /// The `seq` dispatched to this session before; 0 for the first. An edge whose cursor is not
    /// past it reads the mailbox instead.
    pub prev: u64,
}

/// A command that a back end offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// What it asks.
    pub spec: &'a CommandSpec,
    /// A node to be told of its progress.
    pub waiting: Option<&'a NodeId>,
    /// The least that the acceptance must survive; `None` for what the store gives when all is well.
    /// Never more than that ([`Store::durability`](crate::Store)).
    pub durability: Option<Durability>,
}

impl<'a> Offer<'a> {
    /// Offers a command that nobody waits for, at the store's own durability.
    pub fn new(spec: &'a CommandSpec) -> Self {
        Self { spec, waiting: None, durability: None }
    }
}

/// What became of a command that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the mailbox; with `dispatch`, to be pushed now.
    Accepted {
        /// As stored.
        command: Box<Command>,
        /// Where to push it; `None` where it waits, or where the store's full durability was not
        /// reached: then a sweep finds it.
        dispatch: Option<Dispatch>,
        /// What the acceptance survives: at least what was asked.
        durability: Durability,
    },
    /// The same command was accepted before.
    Existing {
        /// As it stands now.
        command: Box<Command>,
        /// What it survives: at least what was asked.
        durability: Durability,
    },
    /// The id belongs to a command with another body.
    Conflict,
    /// The mailbox is at its cap.
    QueueFull {
        /// How many unfinished commands it holds.
        commands: u64,
        /// How many payload bytes they have.
        bytes: u64,
    },
}

/// Commands handed to a session, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// To be delivered in this order; their state is `Dispatched`, or later for a repeated read.
    pub commands: Vec<Command>,
    /// Whether reading again at once would bring more.
    pub more: bool,
    /// Commands that ended on the way, being over or out of attempts, with the nodes that wait for them.
    pub ended: Vec<(Command, Vec<NodeId>)>,
}

/// What an edge learned about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The socket took it.
    Sent,
    /// The device has it.
    Received,
    /// The device works on it.
    Progress(Progress),
    /// The device ended it.
    Result(CommandResult),
}

/// What a report changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// The command moved on, or its progress was noted.
    Applied {
        /// As it stands now.
        command: Box<Command>,
        /// The nodes that wait for it.
        waiting: Vec<NodeId>,
        /// Whether commands wait that may be dispatched now: read the mailbox.
        more: bool,
    },
    /// It says nothing new, or comes after the end: acknowledged and not applied. A result that differs
    /// from the end is recorded as late.
    Late {
        /// The state that stands.
        state: CommandState,
    },
    /// There is no such command, or no longer.
    Unknown,
}

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It beat delivery: the command will not be delivered.
    Cancelled {
        /// As it stands now.
        command: Box<Command>,
        /// The nodes that wait for it.
        waiting: Vec<NodeId>,
    },
    /// The device may have it. The cancellation is to be forwarded to `session` on `node`.
    TooLate {
        /// As it stands now.
        command: Box<Command>,
        /// Whom to tell, where the session still stands.
        forward: Option<(SessionId, NodeRef)>,
    },
    /// It had ended already.
    Ended(Box<Command>),
    /// There is no such command.
    Unknown,
}

/// Something that a sweep found due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SweepFinding {
    /// A command's time was over; it is ended now.
    Expired {
        /// As it stands now.
        command: Box<Command>,
        /// The nodes that wait for it.
        waiting: Vec<NodeId>,
    },
    /// A dispatched command that no edge reported as sent, or a queued one that the window has room
    /// for: the edge should read the mailbox.
    Undelivered {
        /// Whose.
        device: DeviceKey,
        /// The session that it was dispatched to, or is to be.
        session: SessionId,
        /// Where that session is.
        node: NodeRef,
    },
}

/// What waits in all mailboxes of the hub, whichever tenant's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many commands are unfinished.
    pub pending: u64,
    /// When the oldest of them was accepted, by hub time; `None` without any. A store with very many may
    /// take some turns to find it, and until then tells of one that is almost as old.
    pub oldest: Option<UnixMillis>,
}

/// Which commands are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandFilter {
    /// Only those that stand here.
    pub state: Option<CommandState>,
    /// Only those accepted at this time or later.
    pub since: Option<UnixMillis>,
    /// Only those accepted before this time.
    pub until: Option<UnixMillis>,
}

/// Commands that wait for devices. Each operation on one device is atomic.
#[async_trait]
pub trait Mailboxes: Send + Sync + std::fmt::Debug {
    /// Accepts a command, once per id. `Indeterminate` where the durability asked for was not reached:
    /// it may be in the mailbox.
    ///
    /// It is dispatched at once where the device has a session, its window is open and nothing
    /// earlier waits. The window is one from the loss of a session with unfinished commands until the
    /// device acknowledges a command.
    async fn enqueue(&self, device: &DeviceKey, offer: Offer<'_>) -> Result<Enqueued, StoreError>;

    /// Hands the commands after `after`, the `seq` that the session delivered last, to the session:
    /// those dispatched to it already and not
    /// finished, then queued ones as far as the window is open. One that would begin an attempt beyond
    /// its bound ends as `Dead` instead, though not before the device has had
    /// [`undelivered_after`](crate::StoreSettings) since its return to answer what it was given. `Fenced` for a stale session.
    async fn read(
        &self,
        device: &DeviceKey,
        session: SessionId,
        after: u64,
    ) -> Result<Batch, StoreError>;

    /// Notes what an edge learned. `Fenced` where the session is not the device's session; any of a
    /// device's sessions may report on any of its commands.
    async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError>;

    /// Ends a command that is still queued.
    async fn cancel(&self, device: &DeviceKey, id: &CommandId) -> Result<Cancelled, StoreError>;

    /// A command as it stands: one past its time is shown `Expired`, one whose session was lost
    /// `Queued`. `waiting` is added to the nodes to be told of its progress.
    async fn get(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        waiting: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError>;

    /// A device's commands, newest first, finished ones included while they are kept.
    async fn list(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError>;

    /// A tenant's dead commands that were not driven again, in no order that means anything. Weakly
    /// consistent.
    async fn dead(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError>;

    /// Notes on a dead command which one took its place, and takes it out of the dead ones. Gives
    /// whether there is such a dead command. Safe to repeat.
    async fn settle_dead(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        redriven_as: &CommandId,
    ) -> Result<bool, StoreError>;

    /// Takes what is due, hub-wide, ends what is over and tells what needs a push. One sweep takes a
    /// bounded share; nothing found means that nothing is due.
    ///
    /// A window that opens by a report, or by the end of a command's time, is a finding where nobody
    /// read the mailbox since: whoever had to be told may not have been.
    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError>;

    /// Counts what waits, hub-wide, at a price that does not grow with it. A store that does not count
    /// has nothing waiting.
    async fn tally(&self) -> Result<Tally, StoreError> {
        Ok(Tally::default())
    }
}

// === impl Tally ===

impl Tally {
    /// Adds a part of the hub.
    pub fn add(&mut self, pending: u64, oldest: Option<UnixMillis>) {
        self.pending += pending;
        self.oldest = match (self.oldest, oldest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}
