//! Commands to a cluster: split by master, sent side by side, and sent again where a server says that a
//! slot is another's or just moves. Only what a server *refused* is sent again, so nothing is done twice.
//!
//! A script has two keys of its slot, one of which never exists. While the slot moves neither of the
//! two masters has both, and each refuses the script before it begins (TRYAGAIN, or ASK and then
//! TRYAGAIN): a script that began there would stop in the middle at the first key that is not there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, RedisError, RedisResult, Value};
use roost_cluster::{Durability, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use tokio::time::Instant;

use crate::target::Address;

use super::master::Master;
use super::route::slot_of;
use super::{Fault, Found, Link};

/// How long to wait before a slot that moves is asked for again; doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));

/// On which connection something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// That of all commands, in turn.
    Plain,
    /// The same, before all others.
    First,
    /// That on which copies are waited for.
    Durable,
}

/// A command under way.
struct Item {
    index: usize,
    slot: u16,
    cmd: Cmd,
    /// Where a slot that moves is on its way to, if the server said so.
    asking: Option<Arc<Master>>,
    /// It was sent again already: two servers may send it to each other.
    again: bool,
}

/// What to do about an answer that is none.
enum Next {
    /// It is the answer.
    Answered(RedisError),
    /// Ask again, at once or after a pause.
    Again { asking: Option<Arc<Master>>, pause: bool },
}

/// Commands under way to several masters.
struct Scatter {
    deadline: Instant,
    /// How long the next pause is, and whether one is needed.
    pause: Duration,
    wait: bool,
    /// What each is worth: as much as its last answer.
    worth: Vec<Durability>,
    found: Vec<Option<Found>>,
    open: Vec<Item>,
}

/// What one master said.
type Sent = Result<(Vec<RedisResult<Value>>, Durability), StoreError>;

/// Commands to one master.
type Group = (Arc<Master>, bool, Vec<Item>);

// === impl Link ===

impl Link {
    /// Sends each command to its master until each has an answer or the time for answers is over.
    pub(super) async fn scatter(
        &self,
        command: RedisCommand,
        cmds: Vec<Cmd>,
        way: Way,
    ) -> (Vec<Found>, Vec<Durability>) {
        let mut state = Scatter {
            deadline: Instant::now() + self.config.response_timeout,
            pause: PAUSE.0,
            wait: false,
            worth: vec![Durability::Memory; cmds.len()],
            found: cmds.iter().map(|_| None).collect(),
            open: Vec::with_capacity(cmds.len()),
        };
        for (index, cmd) in cmds.into_iter().enumerate() {
            state.open.push(Item { index, slot: slot_of(&cmd), cmd, asking: None, again: false });
        }
        while !state.open.is_empty() {
            let groups = self.groups(&mut state);
            let sent = groups.into_iter().map(|group| self.send_group(command, group, way));
            for (items, answers) in join_all(sent).await {
                self.take(&mut state, items, answers, way);
            }
            if std::mem::take(&mut state.wait) {
                tokio::time::sleep(state.pause).await;
                state.pause = (state.pause * 2).min(PAUSE.1);
            }
        }
        let none = || Err(Fault::Unanswered(StoreError::Corrupt("Redis answered nothing".into())));
        (state.found.into_iter().map(|one| one.unwrap_or_else(none)).collect(), state.worth)
    }

    /// Sorts what is open by the connection that it goes on.
    fn groups(&self, state: &mut Scatter) -> Vec<Group> {
        let map = self.map.load();
        let mut groups: Vec<Group> = Vec::new();
        for mut item in std::mem::take(&mut state.open) {
            let asking = item.asking.take();
            let redirected = asking.is_some();
            let Some(master) = asking.as_ref().or_else(|| map.master_of(item.slot)) else {
                let error = StoreError::NotSent(format!("no master has slot {}", item.slot));
                state.found[item.index] = Some(Err(Fault::Unanswered(error)));
                continue;
            };
            let same = |group: &&mut Group| Arc::ptr_eq(&group.0, master) && group.1 == redirected;
            match groups.iter_mut().find(same) {
                Some(group) => group.2.push(item),
                None => groups.push((Arc::clone(master), redirected, vec![item])),
            }
        }
        groups
    }

    /// Takes in what one master said.
    fn take(&self, state: &mut Scatter, items: Vec<Item>, sent: Sent, way: Way) {
        let (answers, worth) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                for item in items {
                    state.found[item.index] = Some(Err(Fault::Unanswered(error.clone())));
                }
                return;
            }
        };
        for (mut item, answer) in items.into_iter().zip(answers) {
            state.worth[item.index] = worth;
            let next = match answer {
                Ok(value) => {
                    state.found[item.index] = Some(Ok(value));
                    continue;
                }
                Err(error) => self.next(error, item.slot, way),
            };
            match next {
                Next::Again { asking, pause } if Instant::now() + state.pause < state.deadline => {
                    state.wait |= pause || item.again;
                    (item.asking, item.again) = (asking, true);
                    state.open.push(item);
                }
                Next::Again { .. } => state.found[item.index] = Some(Err(moving())),
                Next::Answered(error) => {
                    state.found[item.index] = Some(Err(Fault::Answered(error)));
                }
            }
        }
    }

    async fn send_group(
        &self,
        command: RedisCommand,
        (master, asking, items): Group,
        way: Way,
    ) -> (Vec<Item>, Sent) {
        if way == Way::Durable {
            let cmds = items.iter().map(|item| item.cmd.clone()).collect();
            let sent = master.lane.send(&master, command, cmds).await;
            return (items, sent);
        }
        let mut pipe = redis::pipe();
        for item in &items {
            if asking {
                pipe.cmd("ASKING");
            }
            pipe.add_command(item.cmd.clone());
        }
        let sent = match way {
            Way::First => master.exchange(command, &mut pipe).await,
            Way::Plain | Way::Durable => master.send(command, &mut pipe).await,
        };
        let sent = sent.map(|answers| {
            // Every other one answers ASKING.
            let behind = |answers: Vec<_>| answers.into_iter().skip(1).step_by(2).collect();
            let answers = if asking { behind(answers) } else { answers };
            (answers, self.promise.durability)
        });
        (items, sent)
    }

    fn next(&self, error: RedisError, slot: u16, way: Way) -> Next {
        let to = |error: &RedisError| {
            let (address, _) = error.redirect_node()?;
            Address::parse(address, 0)
        };
        match error.code() {
            Some("MOVED") => {
                let known = to(&error).is_some_and(|address| self.note_moved(slot, &address));
                Next::Again { asking: None, pause: !known }
            }
            Some("ASK") => {
                let map = self.map.load();
                let asking = to(&error).and_then(|address| map.at(&address).cloned());
                // What is to be durable is waited for where it will be.
                let asking = asking.filter(|_| way != Way::Durable);
                Next::Again { pause: asking.is_none(), asking }
            }
            Some("TRYAGAIN") => Next::Again { asking: None, pause: true },
            _ => Next::Answered(error),
        }
    }

    /// Whether an error says that another master has what was asked for; it is noted which.
    pub(crate) fn follow(&self, error: &str) -> bool {
        let mut words = error.split_ascii_whitespace();
        if words.next() != Some("MOVED") {
            return false;
        }
        let slot = words.next().and_then(|word| word.parse().ok());
        let address = words.next().and_then(|word| Address::parse(word, 0));
        match (slot, address) {
            (Some(slot), Some(address)) => self.note_moved(slot, &address),
            _ => false,
        }
    }

    /// Notes that a slot is another master's; gives whether it is one that we know.
    fn note_moved(&self, slot: u16, address: &Address) -> bool {
        let known = self.map.load().at(address).is_some();
        if known {
            let before = self
                .map
                .rcu(|map| map.with(slot, address).map_or_else(|| Arc::clone(map), Arc::new));
            if before.with(slot, address).is_some() {
                self.moved.send_modify(|moves| *moves += 1);
            }
        }
        // Others move with it, as a rule.
        self.look_again();
        known
    }
}

/// A slot moved for longer than a call may take.
fn moving() -> Fault {
    Fault::Unanswered(StoreError::NotSent("the slot of this key is being moved".into()))
}
