//! A master and replicas watched by sentinels, which promote a replica when the master is gone. Each
//! server can stand behind a proxy that everybody else goes through: clients, replicas and sentinels.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::options::Mode;
use crate::replicated::until;
use crate::{FaultProxy, RedisOptions, RedisServer};

/// What the sentinels call the master.
pub const MASTER_NAME: &str = "mymaster";

/// How long a failover that was asked for may take before it is asked for again.
const FAILOVER: Duration = Duration::from_secs(12);
/// How often.
const TURNS: usize = 6;

/// How servers and sentinels are set up.
#[derive(Debug, Clone)]
pub struct SentinelOptions {
    /// How many replicas.
    pub replicas: usize,
    /// How many sentinels; most of them must agree.
    pub sentinels: usize,
    /// How long a server may be silent before a sentinel takes it for gone.
    pub down_after: Duration,
    /// How long a failover may take before another sentinel tries.
    pub failover_timeout: Duration,
    /// Put a proxy before each server.
    pub proxied: bool,
    /// How each server is set up.
    pub server: RedisOptions,
}

/// A master with replicas and sentinels. Dropping it ends them all.
#[derive(Debug)]
pub struct RedisSentinel {
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
    /// Empty where none are wanted.
    proxies: Vec<FaultProxy>,
}

// === impl SentinelOptions ===

impl Default for SentinelOptions {
    fn default() -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_secs(1),
            failover_timeout: Duration::from_secs(5),
            proxied: false,
            server: RedisOptions::default(),
        }
    }
}

// === impl RedisSentinel ===

impl RedisSentinel {
    /// Starts a master, 2 replicas and 3 sentinels that know each other.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(SentinelOptions::default()).await
    }

    /// Starts servers and sentinels, and waits until all of them know each other.
    pub async fn start_with(options: SentinelOptions) -> anyhow::Result<Self> {
        let mut this = Self { sentinels: vec![], servers: vec![], proxies: vec![] };
        for _ in 0..=options.replicas {
            this.start_server(&options).await?;
        }
        for replica in 1..=options.replicas {
            let master = this.port(0).to_string();
            this.servers[replica].ok(&["REPLICAOF", "127.0.0.1", &master]).await?;
        }
        for replica in 1..=options.replicas {
            until(format!("replica {replica} is linked"), async || {
                let server = &this.servers[replica];
                Ok(server.info("replication", "master_link_status").await? == "up")
            })
            .await?;
        }
        let directives = this.directives(&options);
        for _ in 0..options.sentinels {
            let sentinel = RedisServer::launch(Mode::Sentinel(directives.clone())).await?;
            this.sentinels.push(sentinel);
        }
        this.wait_acquainted(&options).await?;
        Ok(this)
    }

    async fn start_server(&mut self, options: &SentinelOptions) -> anyhow::Result<()> {
        let server = RedisServer::start_with(options.server.clone()).await?;
        if options.proxied {
            let proxy = FaultProxy::to_port(server.port()).await?;
            let port = proxy.port().to_string();
            server.ok(&["CONFIG", "SET", "replica-announce-port", &port]).await?;
            server.ok(&["CONFIG", "SET", "replica-announce-ip", "127.0.0.1"]).await?;
            self.proxies.push(proxy);
        }
        // So that it comes back as what it was.
        server.ok(&["CONFIG", "REWRITE"]).await?;
        self.servers.push(server);
        Ok(())
    }

    fn directives(&self, options: &SentinelOptions) -> Vec<String> {
        let quorum = options.sentinels / 2 + 1;
        let mut directives = vec![
            format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {} {quorum}", self.port(0)),
            format!(
                "sentinel down-after-milliseconds {MASTER_NAME} {}",
                options.down_after.as_millis()
            ),
            format!(
                "sentinel failover-timeout {MASTER_NAME} {}",
                options.failover_timeout.as_millis()
            ),
            format!("sentinel parallel-syncs {MASTER_NAME} 2"),
        ];
        if let Some(password) = &options.server.password {
            directives.push(format!("sentinel auth-pass {MASTER_NAME} {password}"));
        }
        directives
    }

    /// Waits until every sentinel knows all replicas and all other sentinels.
    async fn wait_acquainted(&self, options: &SentinelOptions) -> anyhow::Result<()> {
        for (index, sentinel) in self.sentinels.iter().enumerate() {
            until(format!("sentinel {index} knows everybody"), async || {
                let about =
                    sentinel.query(&["SENTINEL", "MASTER", MASTER_NAME]).await?.into_texts();
                let value = |name: &str| {
                    let mut pairs = about.chunks_exact(2);
                    pairs.find(|pair| pair[0] == name).and_then(|pair| pair[1].parse().ok())
                };
                let others = value("num-other-sentinels") == Some(options.sentinels - 1);
                Ok(others && value("num-slaves") == Some(options.replicas))
            })
            .await?;
        }
        Ok(())
    }

    /// `redis-sentinel://HOST:PORT,…/mymaster`, with the servers' user and password.
    pub fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port()));
        let hosts: Vec<_> = hosts.collect();
        let login = self.servers[0].login();
        format!("redis-sentinel://{login}{}/{MASTER_NAME}", hosts.join(","))
    }

    /// Server `index`; 0 is the first master.
    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// How many servers there are, sentinels aside.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Sentinel `index`.
    pub fn sentinel(&mut self, index: usize) -> &mut RedisServer {
        &mut self.sentinels[index]
    }

    /// The proxy before server `index`.
    ///
    /// # Panics
    /// If none were asked for.
    pub fn proxy(&self, index: usize) -> &FaultProxy {
        self.proxies.get(index).expect("SentinelOptions::proxied asks for proxies")
    }

    /// The port that everybody else knows server `index` by.
    pub fn port(&self, index: usize) -> u16 {
        match self.proxies.get(index) {
            Some(proxy) => proxy.port(),
            None => self.servers[index].port(),
        }
    }

    /// Which server is the master, as most sentinels have it.
    pub async fn master(&self) -> anyhow::Result<usize> {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
            let Ok(reply) = sentinel.query(&question).await else { continue };
            let port = reply.into_texts().get(1).and_then(|port| port.parse::<u16>().ok());
            if let Some(index) =
                (0..self.servers.len()).find(|index| Some(self.port(*index)) == port)
            {
                votes[index] += 1;
            }
        }
        let most = votes.iter().position(|votes| votes * 2 > self.sentinels.len());
        most.context("the sentinels do not agree on a master")
    }

    /// Kills the master; gives its index.
    pub async fn kill_master(&mut self) -> anyhow::Result<usize> {
        let master = self.master().await?;
        self.servers[master].kill();
        Ok(master)
    }

    /// Asks for a failover although the master is well, and waits for it; gives the new master's index. A
    /// sentinel gives a failover up when the replica that it chose is slow; it is then asked again.
    pub async fn failover(&self) -> anyhow::Result<usize> {
        let former = self.master().await?;
        for turn in 0.. {
            let sentinel = &self.sentinels[turn % self.sentinels.len()];
            // Refused while one is under way, and for a while after one.
            sentinel.query(&["SENTINEL", "FAILOVER", MASTER_NAME]).await?;
            let promoted = tokio::time::timeout(FAILOVER, self.wait_promoted(former)).await;
            match promoted {
                Ok(promoted) => return promoted,
                Err(_) if turn < TURNS => {}
                Err(_) => bail!("no failover in {TURNS} turns; {}", self.last_words()),
            }
        }
        unreachable!("the turns are counted")
    }

    /// Waits until another server than `former` is the master and says so itself; gives its index.
    pub async fn wait_promoted(&self, former: usize) -> anyhow::Result<usize> {
        let mut promoted = former;
        let waited = until("another server is promoted".into(), async || {
            promoted = self.master().await?;
            Ok(promoted != former
                && self.servers[promoted].info("replication", "role").await? == "master")
        })
        .await;
        waited.with_context(|| self.last_words())?;
        Ok(promoted)
    }

    /// The last lines of the first sentinel's log.
    fn last_words(&self) -> String {
        let log = self.sentinels[0].log();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("the first sentinel says:\n{last}")
    }

    /// Waits until every server that runs but the master follows it.
    pub async fn wait_followed(&self) -> anyhow::Result<()> {
        let master = self.master().await?;
        let port = self.port(master).to_string();
        for (index, server) in self.servers.iter().enumerate() {
            if index == master || server.call(&["PING"]).await.is_err() {
                continue;
            }
            until(format!("server {index} follows server {master}"), async || {
                Ok(server.info("replication", "master_port").await? == port
                    && server.info("replication", "master_link_status").await? == "up")
            })
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
        let mut redis = RedisSentinel::start().await.unwrap();
        assert_eq!(redis.master().await.unwrap(), 0);
        let former = redis.kill_master().await.unwrap();
        let promoted = redis.wait_promoted(former).await.unwrap();
        assert_ne!(promoted, former);
        redis.server(former).restart().await.unwrap();
        redis.wait_followed().await.unwrap();
        assert_eq!(redis.server(former).info("replication", "role").await.unwrap(), "slave");
        assert_ne!(redis.failover().await.unwrap(), promoted);
    }

    #[tokio::test]
    async fn a_failover_can_be_asked_for_and_goes_through_proxies() {
        let options = SentinelOptions { replicas: 1, proxied: true, ..SentinelOptions::default() };
        let redis = RedisSentinel::start_with(options).await.unwrap();
        assert_eq!(redis.failover().await.unwrap(), 1);
        redis.wait_followed().await.unwrap();
        assert!(redis.proxy(1).open_connections() > 0);
    }

    #[tokio::test]
    async fn a_master_that_is_cut_off_is_replaced() {
        let options = SentinelOptions { replicas: 1, proxied: true, ..SentinelOptions::default() };
        let redis = RedisSentinel::start_with(options).await.unwrap();
        redis.proxy(0).refuse(true);
        redis.proxy(0).cut();
        assert_eq!(redis.wait_promoted(0).await.unwrap(), 1);
        redis.proxy(0).heal();
        redis.wait_followed().await.unwrap();
    }
}
