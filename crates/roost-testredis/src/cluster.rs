//! A Redis Cluster, formed by hand: masters that share the slots, each with replicas. Each node can
//! stand behind a proxy that clients and replicas go through; the cluster bus is direct.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::options::Mode;
use crate::replicated::until;
use crate::slots::SLOTS;
use crate::{FaultProxy, RedisOptions, RedisServer, Reply};

/// How long a MIGRATE of one batch may take, in ms.
const MIGRATE_TIMEOUT: &str = "5000";

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many masters.
    pub masters: usize,
    /// How many replicas each master has.
    pub replicas: usize,
    /// How long a node may be silent before it is taken for gone.
    pub node_timeout: Duration,
    /// Put a proxy before each node.
    pub proxied: bool,
    /// How each node is set up.
    pub server: RedisOptions,
}

/// A cluster. Dropping it ends all its nodes.
#[derive(Debug)]
pub struct RedisCluster {
    /// The first masters come first, then replicas: node `masters + i` follows node `i % masters`.
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
    proxies: Vec<FaultProxy>,
    masters: usize,
}

/// What a node thinks of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    id: String,
    flags: String,
    linked: bool,
}

// === impl ClusterOptions ===

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            masters: 3,
            replicas: 1,
            node_timeout: Duration::from_secs(2),
            proxied: false,
            server: RedisOptions::default(),
        }
    }
}

// === impl RedisCluster ===

impl RedisCluster {
    /// Starts 3 masters with a replica each, and waits until the cluster is whole.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(ClusterOptions::default()).await
    }

    /// Starts a cluster, and waits until all its nodes say that it is whole.
    pub async fn start_with(options: ClusterOptions) -> anyhow::Result<Self> {
        let masters = options.masters;
        let mut this = Self { nodes: vec![], ids: vec![], proxies: vec![], masters };
        for index in 0..masters * (1 + options.replicas) {
            this.start_node(index, &options).await?;
        }
        for node in 1..this.nodes.len() {
            this.meet(node).await?;
        }
        this.give_slots().await?;
        let all: Vec<_> = (0..this.nodes.len()).collect();
        for node in &all {
            this.wait_view(*node, "knows everybody", |lines| {
                lines.len() == all.len() && lines.iter().all(|line| line.linked)
            })
            .await?;
        }
        for replica in masters..this.nodes.len() {
            let master = this.ids[(replica - masters) % masters].clone();
            this.nodes[replica].ok(&["CLUSTER", "REPLICATE", &master]).await?;
        }
        this.wait_whole().await?;
        Ok(this)
    }

    async fn start_node(&mut self, index: usize, options: &ClusterOptions) -> anyhow::Result<()> {
        let timeout = options.node_timeout.as_millis();
        let settings = options.server.clone().with("cluster-node-timeout", &timeout.to_string());
        // A replica may take over however long its link was down: tests cut links.
        let settings = settings.with("cluster-replica-validity-factor", "0");
        let node = RedisServer::launch(Mode::Cluster(settings)).await?;
        if options.proxied {
            let proxy = FaultProxy::to_port(node.port()).await?;
            let (port, bus) = (proxy.port().to_string(), node.bus_port().to_string());
            node.ok(&["CONFIG", "SET", "cluster-announce-ip", "127.0.0.1"]).await?;
            node.ok(&["CONFIG", "SET", "cluster-announce-port", &port]).await?;
            node.ok(&["CONFIG", "SET", "cluster-announce-bus-port", &bus]).await?;
            node.ok(&["CONFIG", "REWRITE"]).await?;
            self.proxies.push(proxy);
        }
        if index < options.masters {
            // Different from the start, so that nobody has to sort it out.
            node.ok(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
        }
        self.ids.push(node.call(&["CLUSTER", "MYID"]).await?);
        self.nodes.push(node);
        Ok(())
    }

    async fn meet(&self, node: usize) -> anyhow::Result<()> {
        let port = self.nodes[node].port().to_string();
        let bus = self.nodes[node].bus_port().to_string();
        self.nodes[0].ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await
    }

    async fn give_slots(&self) -> anyhow::Result<()> {
        let share = |index: usize| index * usize::from(SLOTS) / self.masters;
        for master in 0..self.masters {
            let (first, last) = (share(master).to_string(), (share(master + 1) - 1).to_string());
            self.nodes[master].ok(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
        }
        Ok(())
    }

    /// `redis-cluster://HOST:PORT,…` of all first masters.
    pub fn url(&self) -> String {
        let hosts = (0..self.masters).map(|master| format!("127.0.0.1:{}", self.port(master)));
        let hosts: Vec<_> = hosts.collect();
        format!("redis-cluster://{}{}", self.nodes[0].login(), hosts.join(","))
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Node `index`: the first masters come first, their replicas after them in the same order.
    pub fn node(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// The replica that the first master `master` started with.
    pub fn replica_of(&self, master: usize) -> usize {
        master + self.masters
    }

    /// The proxy before node `index`.
    ///
    /// # Panics
    /// If none were asked for.
    pub fn proxy(&self, index: usize) -> &FaultProxy {
        self.proxies.get(index).expect("ClusterOptions::proxied asks for proxies")
    }

    /// The port that clients know node `index` by.
    pub fn port(&self, index: usize) -> u16 {
        match self.proxies.get(index) {
            Some(proxy) => proxy.port(),
            None => self.nodes[index].port(),
        }
    }

    /// Kills a node.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Makes a replica take over from its master, which hands over in order and loses nothing; waits
    /// until everybody that runs has it so.
    pub async fn failover(&self, replica: usize) -> anyhow::Result<()> {
        self.nodes[replica].ok(&["CLUSTER", "FAILOVER"]).await?;
        self.wait_promoted(replica).await
    }

    /// Waits until every node that runs takes this one for a master, and the cluster is well again.
    pub async fn wait_promoted(&self, replica: usize) -> anyhow::Result<()> {
        let id = self.ids[replica].clone();
        for node in self.running().await {
            self.wait_view(node, "sees the promotion", |lines| {
                lines.iter().any(|line| line.id == id && line.flags.contains("master"))
            })
            .await?;
            self.wait_ok(node).await?;
        }
        Ok(())
    }

    /// Waits until every node says that the cluster is well and all replicas are linked.
    pub async fn wait_whole(&self) -> anyhow::Result<()> {
        let replicas = self.nodes.len() - self.masters;
        for node in 0..self.nodes.len() {
            self.wait_ok(node).await?;
            self.wait_view(node, "sees all replicas", |lines| {
                lines.iter().filter(|line| line.flags.contains("slave")).count() == replicas
            })
            .await?;
            until(format!("node {node} has its data"), async || {
                let node = &self.nodes[node];
                Ok(node.info("replication", "role").await? == "master"
                    || node.info("replication", "master_link_status").await? == "up")
            })
            .await?;
        }
        Ok(())
    }

    /// Moves slots, wherever they are, to another node while both serve them: keys go in batches of
    /// `batch`, each by one MIGRATE. Everybody that runs is told at the end of each slot.
    pub async fn migrate(&self, slots: &[u16], to: usize, batch: usize) -> anyhow::Result<()> {
        for slot in slots {
            let from = self.owner(*slot).await?;
            if from != to {
                let moved = self.migrate_slot(*slot, from, to, batch).await;
                moved.with_context(|| format!("moving slot {slot} from node {from} to {to}"))?;
            }
        }
        Ok(())
    }

    async fn migrate_slot(
        &self,
        slot: u16,
        from: usize,
        to: usize,
        batch: usize,
    ) -> anyhow::Result<()> {
        let slot = slot.to_string();
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await?;
        source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await?;
        let (port, batch) = (target.port().to_string(), batch.to_string());
        loop {
            let keys =
                source.query(&["CLUSTER", "GETKEYSINSLOT", &slot, &batch]).await?.into_texts();
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT, "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let reply = source.query(&migrate).await?;
            // NOKEY: they expired or were deleted meanwhile.
            let fine = matches!(&reply, Reply::Text(text) if text == "OK" || text == "NOKEY");
            ensure!(fine, "MIGRATE was answered with {reply:?}");
        }
        // The target first: who is asked in between is led there.
        let mut order = vec![to, from];
        order.extend(self.running().await.into_iter().filter(|node| ![to, from].contains(node)));
        for node in order {
            let tell = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
            match self.nodes[node].query(&tell).await? {
                // Replicas learn it from their masters.
                Reply::Error(error) if error.contains("only with masters") => {}
                Reply::Text(text) if text == "OK" => {}
                other => bail!("SETSLOT NODE was answered with {other:?}"),
            }
        }
        Ok(())
    }

    /// Which node serves a slot.
    pub async fn owner(&self, slot: u16) -> anyhow::Result<usize> {
        let any = *self.running().await.first().context("no node runs")?;
        let slots = self.nodes[any].query(&["CLUSTER", "SLOTS"]).await?;
        let ids: HashMap<_, _> =
            self.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        let Reply::Array(ranges) = &slots else {
            bail!("CLUSTER SLOTS was answered with {slots:?}")
        };
        for range in ranges {
            let Reply::Array(range) = range else { continue };
            let [Reply::Number(first), Reply::Number(last), Reply::Array(master), ..] = &range[..]
            else {
                continue;
            };
            if (*first..=*last).contains(&i64::from(slot))
                && let Some(Reply::Text(id)) = master.get(2)
            {
                return ids.get(id.as_str()).copied().context("a node that is not of this cluster");
            }
        }
        bail!("nobody serves slot {slot}")
    }

    async fn running(&self) -> Vec<usize> {
        let mut running = vec![];
        for (index, node) in self.nodes.iter().enumerate() {
            let ping = tokio::time::timeout(Duration::from_millis(500), node.call(&["PING"]));
            if matches!(ping.await, Ok(Ok(_))) {
                running.push(index);
            }
        }
        running
    }

    async fn wait_ok(&self, node: usize) -> anyhow::Result<()> {
        until(format!("the cluster is well for node {node}"), async || {
            let info = self.nodes[node].call(&["CLUSTER", "INFO"]).await?;
            Ok(info.contains("cluster_state:ok"))
        })
        .await
    }

    async fn wait_view(
        &self,
        node: usize,
        what: &str,
        right: impl Fn(&[Line]) -> bool,
    ) -> anyhow::Result<()> {
        until(format!("node {node} {what}"), async || {
            let text = self.nodes[node].call(&["CLUSTER", "NODES"]).await?;
            let lines: Vec<Line> = text.lines().filter_map(Line::parse).collect();
            Ok(right(&lines))
        })
        .await
    }
}

// === impl Line ===

impl Line {
    /// `ID ADDRESS FLAGS MASTER PING PONG EPOCH LINK SLOT…`
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let [id, _, flags, _, _, _, _, state, ..] = words[..] else { return None };
        let linked = state == "connected" && !flags.contains("handshake");
        Some(Self { id: id.into(), flags: flags.into(), linked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot_of;

    #[tokio::test]
    async fn a_killed_master_is_replaced_by_its_replica() {
        let mut redis = RedisCluster::start().await.unwrap();
        assert_eq!(redis.nodes(), 6);
        assert_eq!(redis.owner(0).await.unwrap(), 0);
        assert_eq!(redis.owner(SLOTS - 1).await.unwrap(), 2);
        redis.kill(0);
        let replica = redis.replica_of(0);
        redis.wait_promoted(replica).await.unwrap();
        assert_eq!(redis.owner(0).await.unwrap(), replica);
        redis.node(0).restart().await.unwrap();
        redis.wait_whole().await.unwrap();
    }

    #[tokio::test]
    async fn slots_move_with_their_keys_and_masters_hand_over() {
        let options = ClusterOptions { proxied: true, ..ClusterOptions::default() };
        let redis = RedisCluster::start_with(options).await.unwrap();
        let slot = slot_of("{p0}");
        let from = redis.owner(slot).await.unwrap();
        for key in 0..25 {
            redis.nodes[from].ok(&["SET", &format!("{{p0}}:{key}"), "v"]).await.unwrap();
        }
        let to = (from + 1) % 3;
        redis.migrate(&[slot], to, 10).await.unwrap();
        assert_eq!(redis.owner(slot).await.unwrap(), to);
        assert_eq!(redis.nodes[to].call(&["GET", "{p0}:24"]).await.unwrap(), "v");
        let moved = redis.nodes[from].call(&["GET", "{p0}:24"]).await.unwrap();
        assert_eq!(moved, format!("-MOVED {slot} 127.0.0.1:{}", redis.port(to)));
        redis.failover(redis.replica_of(to)).await.unwrap();
        assert_eq!(redis.owner(slot).await.unwrap(), redis.replica_of(to));
    }
}
