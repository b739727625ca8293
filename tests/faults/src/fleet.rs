//! All devices of a run, and the orders that scenarios give them. What one device does is in `device.rs`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::device::{Device, Duel, Order, Seen, Surroundings};
use crate::names::Name;

/// Of so many devices one follows topics.
const FOLLOWERS: usize = 20;
/// How many connect at once in the beginning: the hub admits devices at a rate.
const AT_ONCE: usize = 50;
/// How long the fleet may take to connect.
const CONNECT: Duration = Duration::from_secs(120);
/// Orders that wait for one device.
const ORDERS: usize = 16;

/// The devices of a run. Dropping it cuts their connections.
#[derive(Debug)]
pub struct Fleet {
    around: Arc<Surroundings>,
    members: Vec<Member>,
    tasks: JoinSet<()>,
}

/// A device as scenarios know it.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub name: Name,
    /// What may be known of it.
    pub seen: Arc<Seen>,
    orders: mpsc::Sender<Order>,
}

// === impl Fleet ===

impl Fleet {
    /// Starts `count` devices, and waits until all are connected.
    pub async fn start(around: Arc<Surroundings>, count: usize) -> anyhow::Result<Self> {
        let mut fleet = Self { around, members: vec![], tasks: JoinSet::new() };
        while fleet.members.len() < count {
            for _ in 0..AT_ONCE.min(count - fleet.members.len()) {
                let number = fleet.members.len();
                fleet.add(Name::number(number), number.is_multiple_of(FOLLOWERS));
            }
            fleet.wait_connected(CONNECT).await?;
        }
        Ok(fleet)
    }

    /// One more device; gives its place.
    pub fn add(&mut self, name: Name, follows: bool) -> usize {
        self.add_with(name, follows, |_| {})
    }

    fn add_with(&mut self, name: Name, follows: bool, change: impl FnOnce(&mut Device)) -> usize {
        let seen = Arc::new(Seen::default());
        let (orders, taken) = mpsc::channel(ORDERS);
        let around = Arc::clone(&self.around);
        let mut device = Device::new(name.clone(), around, Arc::clone(&seen), taken, follows);
        change(&mut device);
        self.tasks.spawn(device.run());
        self.members.push(Member { name, seen, orders });
        self.members.len() - 1
    }

    /// Two more devices that fight for one name, each at an edge of its own; gives their places.
    pub fn add_rivals(&mut self, name: &Name, duel: &Arc<Duel>) -> [usize; 2] {
        [0, 1].map(|edge| {
            self.add_with(name.clone(), false, |device| {
                device.duel = Some(Arc::clone(duel));
                device.pinned = Some(edge);
            })
        })
    }

    /// All devices.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Waits until every device is connected; those that were told to stay away never are.
    pub async fn wait_connected(&self, within: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + within;
        loop {
            let away = self.members.iter().filter(|member| !member.is_connected()).count();
            if away == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{away} devices did not connect within {within:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

// === impl Member ===

impl Member {
    /// Asks something of the device.
    pub async fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders.send(order).await.context("the device's task has ended")
    }

    /// Whether it has a connection that was welcomed.
    pub fn is_connected(&self) -> bool {
        self.seen.session.lock().is_some()
    }
}
