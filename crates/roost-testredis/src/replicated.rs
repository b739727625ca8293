//! A master and its replicas, the links between them through proxies so that they can be cut, and one
//! address before them that is moved by hand, as a service's is. Nobody promotes anything by itself:
//! for that see `sentinel.rs`.

use std::time::Duration;

use anyhow::Context as _;

use crate::{FaultProxy, RedisOptions, RedisServer};

/// Pause between two looks at a server.
const POLL: Duration = Duration::from_millis(10);
/// How long what must come may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a master and its replicas are set up.
#[derive(Debug, Clone)]
pub struct ReplicatedOptions {
    /// How many replicas.
    pub replicas: usize,
    /// How each server is set up.
    pub server: RedisOptions,
}

/// A master with replicas. Dropping it ends them all.
#[derive(Debug)]
pub struct RedisReplicated {
    /// What clients connect to.
    front: FaultProxy,
    servers: Vec<RedisServer>,
    /// The way of server `i` to its master; that of the first master leads nowhere.
    links: Vec<FaultProxy>,
    master: usize,
}

// === impl ReplicatedOptions ===

impl Default for ReplicatedOptions {
    fn default() -> Self {
        Self { replicas: 1, server: RedisOptions::default() }
    }
}

// === impl RedisReplicated ===

impl RedisReplicated {
    /// Starts a master and one replica, and waits until they are in step.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(ReplicatedOptions::default()).await
    }

    /// Starts a master and replicas, and waits until they are in step.
    pub async fn start_with(options: ReplicatedOptions) -> anyhow::Result<Self> {
        let mut servers = vec![];
        let mut links = vec![];
        for _ in 0..=options.replicas {
            servers.push(RedisServer::start_with(options.server.clone()).await?);
            links.push(FaultProxy::to_port(servers[0].port()).await?);
        }
        let front = FaultProxy::to_port(servers[0].port()).await?;
        let this = Self { front, servers, links, master: 0 };
        for replica in 1..this.servers.len() {
            this.follow(replica).await?;
        }
        this.wait_in_step().await?;
        Ok(this)
    }

    /// `redis://…` of the address that leads to the master, whichever that is.
    pub fn url(&self) -> String {
        self.servers[self.master].url_via(self.front.port())
    }

    /// What clients connect to.
    pub fn front(&self) -> &FaultProxy {
        &self.front
    }

    /// Server `index`; 0 is the first master.
    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// The master.
    pub fn master(&mut self) -> &mut RedisServer {
        &mut self.servers[self.master]
    }

    /// Which server is the master.
    pub fn master_index(&self) -> usize {
        self.master
    }

    /// The way of server `index` to its master, to be cut: `stall`, or `refuse` and `cut`.
    pub fn link(&self, index: usize) -> &FaultProxy {
        &self.links[index]
    }

    /// Cuts the link of every replica; they stay as they are, and the master notices.
    pub fn cut_links(&self) {
        for link in &self.links {
            link.refuse(true);
            link.cut();
        }
    }

    /// Makes a replica the master, moves the clients' address there, and lets everybody else that runs
    /// follow it: what the former master had alone is lost.
    pub async fn promote(&mut self, index: usize) -> anyhow::Result<()> {
        self.servers[index].ok(&["REPLICAOF", "NO", "ONE"]).await?;
        self.master = index;
        self.front.retarget_port(self.servers[index].port());
        for other in 0..self.servers.len() {
            self.links[other].heal();
            self.links[other].retarget_port(self.servers[index].port());
            if other != index && self.servers[other].is_running() {
                // A paused one would not answer; it follows when it is told to.
                let follow = tokio::time::timeout(Duration::from_secs(1), self.follow(other));
                drop(follow.await);
            }
        }
        Ok(())
    }

    /// Tells a server to follow the master.
    pub async fn follow(&self, index: usize) -> anyhow::Result<()> {
        let port = self.links[index].port().to_string();
        self.servers[index].ok(&["REPLICAOF", "127.0.0.1", &port]).await
    }

    /// Waits until every replica that runs has all that the master has had when this was called.
    pub async fn wait_in_step(&self) -> anyhow::Result<()> {
        let at = async |server: &RedisServer, name| {
            let offset = server.info("replication", name).await?;
            anyhow::Ok(offset.parse::<u64>().unwrap_or(0))
        };
        let master = &self.servers[self.master];
        let goal = at(master, "master_repl_offset").await?;
        for (index, server) in self.servers.iter().enumerate() {
            if index == self.master || server.call(&["PING"]).await.is_err() {
                continue;
            }
            until(format!("replica {index} is in step"), async || {
                let linked = server.info("replication", "master_link_status").await? == "up";
                Ok(linked && at(server, "slave_repl_offset").await? >= goal)
            })
            .await?;
        }
        Ok(())
    }
}

/// Looks again and again until it is so; errors are not so yet.
pub(crate) async fn until(
    what: String,
    mut look: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let looking = async {
        while !look().await.unwrap_or(false) {
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, looking).await;
    waited.with_context(|| format!("within {PATIENCE:?} it did not come true: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_promoted_replica_lacks_what_the_cut_link_held_back() {
        let mut redis = RedisReplicated::start().await.unwrap();
        redis.master().ok(&["SET", "early", "1"]).await.unwrap();
        redis.wait_in_step().await.unwrap();
        redis.cut_links();
        until("the master noticed".into(), async || {
            let replicas = redis.servers[0].info("replication", "connected_slaves").await?;
            Ok(replicas == "0")
        })
        .await
        .unwrap();
        redis.master().ok(&["SET", "late", "1"]).await.unwrap();
        let url = redis.url();
        redis.promote(1).await.unwrap();
        assert_eq!(redis.url(), url, "clients find it where the master was");
        assert_eq!(redis.master().call(&["GET", "early"]).await.unwrap(), "1");
        assert_eq!(redis.master().call(&["GET", "late"]).await.unwrap(), "(nil)");
        redis.wait_in_step().await.unwrap();
        assert_eq!(redis.server(0).call(&["GET", "late"]).await.unwrap(), "(nil)");
    }
}
