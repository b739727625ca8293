//! Asking who is master: the URL itself, the sentinels, or the nodes of the cluster. Of several answers
//! the one of the newest epoch counts: who was cut off from the others names the former master.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value};

use crate::error::{StartError, refused};
use crate::reply::{Fields, Reply};
use crate::target::{Address, Shape, Target};

use super::route::{SLOTS, View};

/// Nodes of a cluster that are remembered to be asked: enough that one of them lives.
const REMEMBERED: usize = 64;

/// What one of those who know says, and how much that is worth.
type Told = ((bool, u64, usize), View, Vec<Address>);

/// Asks, and remembers whom it can ask.
pub(super) struct Viewer {
    target: Target,
    limit: Duration,
    /// Connections to those who know, kept while they answer.
    open: Mutex<HashMap<Address, MultiplexedConnection>>,
    /// The cluster's nodes as of the last answer, replicas too.
    nodes: Mutex<Vec<Address>>,
}

// === impl Viewer ===

impl Viewer {
    pub(super) fn new(target: &Target, limit: Duration) -> Self {
        let nodes = Mutex::new(target.seeds.clone());
        Self { target: target.clone(), limit, open: Mutex::default(), nodes }
    }

    /// Who should be master of what.
    pub(super) async fn look(&self) -> Result<View, StartError> {
        let told = match &self.target.shape {
            Shape::Standalone => {
                return Ok(View { masters: self.target.seeds.clone(), ranges: Vec::new() });
            }
            Shape::Sentinel { master } => {
                let asked = self.target.seeds.iter().map(|seed| self.ask_sentinel(seed, master));
                join_all(asked).await
            }
            Shape::Cluster => {
                let nodes = self.nodes.lock().clone();
                join_all(nodes.iter().map(|node| self.ask_node(node))).await
            }
        };
        let mut best: Option<Told> = None;
        let mut trouble = None;
        for told in told {
            match told {
                Ok(told) if best.as_ref().is_none_or(|best| told.0 > best.0) => best = Some(told),
                Ok(_) => {}
                // A wrong password says more than another one that does not answer.
                Err(error) => {
                    let says_more = !matches!(error, StartError::Unreachable(_));
                    if trouble.is_none() || says_more {
                        trouble = Some(error);
                    }
                }
            }
        }
        let Some((_, view, mut nodes)) = best else {
            return Err(trouble.unwrap_or_else(|| {
                StartError::Unreachable("nobody knows who is master".to_owned())
            }));
        };
        if self.target.is_cluster() {
            nodes.extend(self.target.seeds.iter().cloned());
            nodes.sort_unstable();
            nodes.dedup();
            nodes.truncate(REMEMBERED);
            self.open.lock().retain(|address, _| nodes.contains(address));
            *self.nodes.lock() = nodes;
        }
        Ok(view)
    }

    async fn ask_sentinel(&self, sentinel: &Address, master: &str) -> Result<Told, StartError> {
        let client = self.target.sentinel(sentinel)?;
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("MASTER").arg(master);
        let answers = self.exchange(sentinel, &client, &pipe).await?;
        let strange = |error| StartError::Unreachable(format!("sentinel {sentinel}: {error}"));
        read_sentinel(answers).map_err(strange)
    }

    async fn ask_node(&self, node: &Address) -> Result<Told, StartError> {
        let client = self.target.client(node)?;
        let mut pipe = redis::pipe();
        pipe.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let answers = self.exchange(node, &client, &pipe).await?;
        let strange = |error| StartError::Unreachable(format!("{node}: {error}"));
        read_cluster(answers, node).map_err(strange)
    }

    /// Asks on the connection that is kept, or on a new one.
    async fn exchange(
        &self,
        address: &Address,
        client: &Client,
        pipe: &redis::Pipeline,
    ) -> Result<Vec<Value>, StartError> {
        let kept = self.open.lock().get(address).cloned();
        let work = async {
            let mut connection = if let Some(connection) = kept {
                connection
            } else {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.limit))
                    .set_response_timeout(Some(self.limit));
                client.get_multiplexed_async_connection_with_config(&config).await?
            };
            let answers = pipe.query_async::<Vec<Value>>(&mut connection).await?;
            Ok::<_, redis::RedisError>((connection, answers))
        };
        let done = tokio::time::timeout(self.limit, work).await;
        let done = done.map_err(|_| {
            StartError::Unreachable(format!("{address} did not answer within {:?}", self.limit))
        });
        match done.and_then(|done| done.map_err(|error| refused(address, &error))) {
            Ok((connection, answers)) => {
                self.open.lock().insert(address.clone(), connection);
                Ok(answers)
            }
            Err(error) => {
                self.open.lock().remove(address);
                Err(error)
            }
        }
    }

    /// Returns when a sentinel says that there is another master.
    pub(super) async fn hear_of_a_switch(&self) {
        loop {
            for sentinel in &self.target.seeds {
                if self.listen_to(sentinel).await.is_some() {
                    return;
                }
            }
            // Meanwhile the sentinels are asked now and then.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn listen_to(&self, sentinel: &Address) -> Option<()> {
        let client = self.target.sentinel(sentinel).ok()?;
        let opened = tokio::time::timeout(self.limit, client.get_async_pubsub()).await;
        let (mut sink, mut stream) = opened.ok()?.ok()?.split();
        tokio::time::timeout(self.limit, sink.subscribe("+switch-master")).await.ok()?.ok()?;
        loop {
            tokio::select! {
                biased;
                // Any switch is a reason to look; the sentinels may know several masters.
                message = stream.next() => return message.map(drop),
                // One that was paused or cut off says nothing.
                () = tokio::time::sleep(Duration::from_secs(5)) => {
                    let ping = sink.ping::<Value>();
                    tokio::time::timeout(self.limit, ping).await.ok()?.ok()?;
                }
            }
        }
    }
}

fn read_sentinel(answers: Vec<Value>) -> Result<Told, roost_cluster::StoreError> {
    let mut fields = Fields::new(answers.into_iter().next().unwrap_or(Value::Nil))?;
    let host = fields.needed_text("ip")?;
    let port = fields.needed("port")?;
    let epoch = fields.parse("config-epoch")?.unwrap_or(0);
    let view = View { masters: vec![Address::new(host, port)], ranges: Vec::new() };
    Ok(((true, epoch, 0), view, Vec::new()))
}

fn read_cluster(answers: Vec<Value>, asked: &Address) -> Result<Told, roost_cluster::StoreError> {
    let mut answers = Reply::new(Value::Array(answers))?;
    let info = answers.text()?;
    let line = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let fine = line("cluster_state") == Some("ok");
    let epoch = line("cluster_current_epoch").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut slots = answers.list()?;
    let (mut ranges, mut nodes) = (Vec::new(), Vec::new());
    let mut covered = 0;
    while !slots.is_done() {
        let mut range = slots.list()?;
        let (first, last) = (slot_number(range.number()?), slot_number(range.number()?));
        let mut master = None;
        while !range.is_done() {
            if let Some(found) = read_node(range.list()?, asked)? {
                master.get_or_insert_with(|| found.clone());
                nodes.push(found);
            }
        }
        if let Some(master) = master {
            covered += usize::from(last.saturating_sub(first)) + 1;
            ranges.push((first, last, master));
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    let mut masters: Vec<Address> = ranges.iter().map(|(_, _, master)| master.clone()).collect();
    masters.sort_unstable();
    masters.dedup();
    let place = |master: &Address| masters.binary_search(master).unwrap_or(usize::MAX);
    let mut ranges: Vec<_> = ranges.iter().map(|(a, b, master)| (*a, *b, place(master))).collect();
    ranges.sort_unstable();
    Ok(((fine, epoch, covered), View { masters, ranges }, nodes))
}

fn slot_number(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(SLOTS).min(SLOTS - 1)
}

/// A node of CLUSTER SLOTS. One without a host has the host that was asked; one that is unknown is none.
fn read_node(
    mut node: Reply,
    asked: &Address,
) -> Result<Option<Address>, roost_cluster::StoreError> {
    let host = node.optional_text()?.unwrap_or_default();
    let port = u16::try_from(node.number()?).unwrap_or(0);
    let host = match host.as_str() {
        "?" => return Ok(None),
        "" => asked.host.clone(),
        _ => host,
    };
    Ok((port != 0).then(|| Address::new(host, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("id")])
    }

    #[test]
    fn a_clusters_slots_are_read() {
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let slots = Value::Array(vec![
            range(100, 16_383, vec![node(text("b"), 2), node(text("c"), 3)]),
            range(0, 98, vec![node(text(""), 1), node(text("?"), 9)]),
            range(99, 99, vec![node(Value::Nil, 1)]),
        ]);
        let info = text("cluster_state:ok\r\ncluster_current_epoch:7\r\n");
        let (worth, view, nodes) = read_cluster(vec![info, slots], &Address::new("a", 5)).unwrap();
        assert_eq!(worth, (true, 7, 16_384));
        assert_eq!(view.masters, [Address::new("a", 1), Address::new("b", 2)]);
        assert_eq!(view.ranges, [(0, 98, 0), (99, 99, 0), (100, 16_383, 1)]);
        assert_eq!(nodes.len(), 3);
    }

    #[test]
    fn a_sentinels_master_is_read() {
        let words = ["name", "m", "ip", "::1", "port", "6379", "config-epoch", "3"];
        let answer = Value::Array(words.into_iter().map(text).collect());
        let (worth, view, _) = read_sentinel(vec![answer]).unwrap();
        assert_eq!((worth.1, view.masters), (3, vec![Address::new("::1", 6379)]));
        assert!(read_sentinel(vec![]).is_err());
    }
}
