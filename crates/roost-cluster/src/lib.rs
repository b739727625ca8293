#![doc = include_str!("../README.md")]

mod bus;
mod clock;
#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod history;
mod keeper;
mod lease;
mod mailboxes;
mod memory;
mod nodes;
mod page;
mod sessions;
mod store;
mod sweeper;
mod switchboard;
mod watcher;

pub use bus::{Bus, BusEvent, NodeEvent, Resubscribed};
pub use clock::{Clock, HubClock, ManualClock};
pub use error::StoreError;
pub use history::{HistoryEntry, HistoryEvent, Refusal};
pub use keeper::{Keeper, SessionHolder};
pub use lease::Lease;
pub use mailboxes::{
    Batch, Cancelled, CommandFilter, Dispatch, Enqueued, Mailboxes, Offer, Report, Reported,
    SweepFinding, Tally,
};
pub use memory::MemoryHub;
pub use nodes::{NodeInfo, NodeRecord, NodeRef, Nodes, Role, Roles};
pub use page::{Page, PageRequest};
pub use sessions::{
    CONTEST_TAKEOVERS, CONTEST_WINDOW, Claimed, DeviceFilter, DeviceRecord, Initiator, LastClose,
    PresenceEvent, PresenceItem, PresenceKind, Revalidated, SessionClaim, SessionInfo, Sessions,
};
pub use store::{Durability, Store, StoreHealth, StoreSettings};
pub use switchboard::{NodeSink, Switchboard};
pub use watcher::PresenceWatcher;
