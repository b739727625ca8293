//! The `Nodes` seam, and this node's view of which nodes live.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use roost_cluster::{NodeInfo, NodeRecord, NodeRef, Nodes, Roles, StoreError};
use roost_types::UnixMillis;
use tokio::time::Instant;

use crate::error::corrupt;
use crate::link::Link;
use crate::reply::{Fields, Reply};
use crate::script::{self, Call};
use crate::sessions::parse_node;
use crate::store::{RedisStore, millis};

/// The view is read again when it is older than this, or than a tenth of a lease.
const VIEW_AGE: Duration = Duration::from_secs(1);
/// How long the words of a dead node that nobody forgot are kept.
const INFO_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// This node's last look at the leases.
#[derive(Debug, Default)]
pub(crate) struct NodesView(Mutex<Option<(Instant, Arc<Leases>)>>);

/// The end of each node's lease, in ms of hub time.
#[derive(Debug)]
struct Leases {
    /// When they were looked at. This node's own clock may lag behind it a little, and who was dead
    /// then is dead now.
    seen: u64,
    until: HashMap<NodeRef, u64>,
}

/// Which nodes live, as far as can be told.
#[derive(Debug)]
pub(crate) struct Liveness {
    leases: Arc<Leases>,
    /// Redis was away for so long, or so recently, that leases may be over without anybody's fault.
    in_doubt: bool,
}

// === impl Liveness ===

impl Liveness {
    pub(crate) fn is_live(&self, node: &NodeRef, now: UnixMillis) -> bool {
        let now = now.0.max(self.leases.seen);
        self.in_doubt || self.leases.until.get(node).is_some_and(|until| *until > now)
    }
}

#[async_trait]
impl Nodes for RedisStore {
    async fn heartbeat(&self, info: &NodeInfo) -> Result<(), StoreError> {
        let asked = Instant::now();
        let call = node_call(&self.link, &info.node)
            .number(millis(self.settings.lease))
            .number(millis(INFO_TTL));
        let call = info_args(call, info);
        let mut answer = self.link.beat(&call).await?;
        let told = UnixMillis(answer.rest.number()?);
        self.link.clock.set(asked, told);
        self.link.metrics().set_hub_time_error(self.link.clock.error_bound());
        match answer.tag.as_str() {
            "OK" => Ok(()),
            "STALE" => Err(StoreError::Stale),
            "FENCED" => Err(StoreError::Fenced),
            other => Err(corrupt(format!("heartbeat answered {other:?}"))),
        }
    }

    async fn leave(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.strike(node).await
    }

    async fn list(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let (leases, found) = self.leases().await?;
        let mut records = Vec::new();
        for lease in found {
            // The words of a node that left a moment ago may be gone before its lease.
            if !lease.info.is_empty() {
                records.push(lease.record(leases.seen)?);
            }
        }
        records.sort_by(|a, b| a.info.node.id.cmp(&b.info.node.id));
        Ok(records)
    }

    async fn dead(&self) -> Result<Vec<NodeRef>, StoreError> {
        let (leases, found) = self.leases().await?;
        let now = leases.seen;
        // Asked only now: an interruption in between counts.
        if self.link.up_for() < self.settings.lease {
            return Ok(Vec::new());
        }
        Ok(found.into_iter().filter(|lease| lease.until <= now).map(|lease| lease.node).collect())
    }

    async fn forget(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.strike(node).await
    }

    async fn take_turn(&self, job: &str, ttl: Duration) -> Result<bool, StoreError> {
        let call = nodes_call(&self.link).arg(job).number(millis(ttl).max(1));
        let mut answer = self.link.run(&script::TURN, &call).await?;
        Ok(answer.rest.number()? == 1)
    }

    async fn shed(&self, wanted: u32, per_second: u32) -> Result<u32, StoreError> {
        let call = nodes_call(&self.link).number(wanted.into()).number(per_second.into());
        let mut answer = self.link.run(&script::SHED, &call).await?;
        u32::try_from(answer.rest.number()?).map_err(corrupt)
    }
}

impl RedisStore {
    async fn strike(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.bus.drop_filters_of(node).await?;
        let call = node_call(&self.link, node);
        self.link.run(&script::STRIKE_NODE, &call).await?;
        self.view.0.lock().take();
        Ok(())
    }

    /// Looks at the leases; every look is this node's view from then on.
    async fn leases(&self) -> Result<(Arc<Leases>, Vec<LeaseRow>), StoreError> {
        let call = read_call(&self.link);
        let mut answer = self.link.run(&script::NODES, &call).await?;
        let seen = answer.rest.number()?;
        let mut rows = Vec::new();
        while !answer.rest.is_done() {
            rows.push(LeaseRow::read(answer.rest.list()?)?);
        }
        let until = rows.iter().map(|row| (row.node.clone(), row.until)).collect();
        let leases = Arc::new(Leases { seen, until });
        *self.view.0.lock() = Some((Instant::now(), Arc::clone(&leases)));
        Ok((leases, rows))
    }

    /// Which nodes live, looked up again if the last look is too old, or `anew`.
    pub(crate) async fn liveness(&self, anew: bool) -> Result<Liveness, StoreError> {
        let age = if anew { Duration::ZERO } else { VIEW_AGE.min(self.settings.lease / 10) };
        let seen = self.view.0.lock().clone();
        let leases = match seen.filter(|(at, _)| at.elapsed() < age) {
            Some((_, leases)) => leases,
            None => self.leases().await?.0,
        };
        let in_doubt = self.link.was_interrupted() && self.link.up_for() < self.settings.lease;
        Ok(Liveness { leases, in_doubt })
    }
}

fn nodes_call(link: &Link) -> Call {
    let base = link.keys.nodes();
    Call::new(base.clone(), &base, link.not_after())
}

fn read_call(link: &Link) -> Call {
    let base = link.keys.nodes();
    Call::new(base.clone(), &base, 0)
}

fn node_call(link: &Link, node: &NodeRef) -> Call {
    nodes_call(link).arg(node.id.as_str()).arg(format!("{:x}", node.incarnation))
}

fn info_args(call: Call, info: &NodeInfo) -> Call {
    let flag = |on: bool| u64::from(on);
    call.arg("edge")
        .number(flag(info.roles.edge))
        .arg("control")
        .number(flag(info.roles.control))
        .arg("version")
        .arg(&info.version)
        .arg("address")
        .arg(&info.address)
        .arg("started")
        .number(info.started.0)
        .arg("devices")
        .number(info.devices)
        .arg("draining")
        .number(flag(info.draining))
}

/// A node's lease as Redis has it.
struct LeaseRow {
    node: NodeRef,
    until: u64,
    info: Fields,
}

// === impl LeaseRow ===

impl LeaseRow {
    fn read(mut row: Reply) -> Result<Self, StoreError> {
        let member = row.text()?;
        let (id, incarnation) =
            member.rsplit_once('#').ok_or_else(|| corrupt(format!("{member:?} is no node")))?;
        let node = parse_node(id.to_owned(), incarnation)?;
        Ok(Self { node, until: row.number()?, info: row.fields()? })
    }

    fn record(mut self, now: u64) -> Result<NodeRecord, StoreError> {
        let info = &mut self.info;
        let mut flag = |name| Ok::<_, StoreError>(info.needed::<u8>(name)? == 1);
        let roles = Roles { edge: flag("edge")?, control: flag("control")? };
        let draining = flag("draining")?;
        Ok(NodeRecord {
            last_heartbeat: UnixMillis(info.needed("hb")?),
            live: self.until > now,
            info: NodeInfo {
                node: self.node,
                roles,
                version: info.needed_text("version")?,
                address: info.needed_text("address")?,
                started: UnixMillis(info.needed("started")?),
                devices: info.needed("devices")?,
                draining,
            },
        })
    }
}
