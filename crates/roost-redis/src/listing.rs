//! Lists of commands: one device's, newest first; and a tenant's dead ones, through the partitions.

use redis::Value;
use roost_cluster::{Clock, CommandFilter, Durability, Page, PageRequest, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{Command, DeviceKey, Partition, TenantId};

use crate::keys::{command_id, parse_dev};
use crate::link::Answer;
use crate::records::{as_seen, stored};
use crate::reply::{Fields, Reply, parse};
use crate::script::{self, Call};
use crate::store::RedisStore;

/// How often a list looks further when a filter left too few for a page.
const LIST_ROUNDS: usize = 4;
/// How many dead commands one script reads, so that none blocks Redis for long.
const DEAD_BATCH: usize = 50;

/// How far a list of dead commands has come: in this partition, up to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeadPlace {
    partition: Partition,
    /// Score and member of the last one; `None` at the partition's beginning.
    after: Option<(String, String)>,
}

fn unreadable() -> StoreError {
    StoreError::Invalid("this page token is not one of this hub's".into())
}

// === impl DeadPlace ===

impl DeadPlace {
    /// Reads `<partition>.<score>.<member>`; member and score are empty at the beginning.
    fn parse(token: Option<&str>) -> Result<Self, StoreError> {
        let Some(token) = token else {
            return Ok(Self { partition: Partition::new(0), after: None });
        };
        let place = |token: &str| {
            let (partition, rest) = token.split_once('.')?;
            let (score, member) = rest.split_once('.')?;
            let numeric = !score.is_empty() && score.bytes().all(|byte| byte.is_ascii_digit());
            let after = match member {
                "" if score.is_empty() => None,
                member if numeric && !member.is_empty() => {
                    Some((score.to_owned(), member.to_owned()))
                }
                _ => return None,
            };
            Some(Self { partition: Partition::new(partition.parse().ok()?), after })
        };
        place(token).ok_or_else(unreadable)
    }

    fn token(&self) -> String {
        let (score, member) = match &self.after {
            Some((score, member)) => (score.as_str(), member.as_str()),
            None => ("", ""),
        };
        format!("{}.{score}.{member}", self.partition.number())
    }
}

impl RedisStore {
    pub(crate) async fn list_commands(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let mut before: Option<u64> =
            page.token.as_deref().map(str::parse).transpose().map_err(|_| unreadable())?;
        let size = page.size.max(1);
        let mut items = Vec::new();
        for _ in 0..LIST_ROUNDS {
            let (found, next) = self.list_round(device, filter, before, size).await?;
            for command in found.into_iter().filter(|command| filter.accepts(command)) {
                if items.len() == size {
                    // More than fit: the next page begins behind the last that did.
                    let next = items.last().map(|last: &Command| last.seq.to_string());
                    return self.listed(device, Page { items, next }).await;
                }
                items.push(command);
            }
            before = next;
            if before.is_none() || items.len() == size {
                break;
            }
        }
        let next = before.map(|before| before.to_string());
        self.listed(device, Page { items, next }).await
    }

    /// A page, once what it shows is as durable as this hub promises.
    async fn listed(
        &self,
        device: &DeviceKey,
        page: Page<Command>,
    ) -> Result<Page<Command>, StoreError> {
        if self.link.durability() > Durability::Memory && !page.items.is_empty() {
            let base = self.link.keys.base(Partition::of(device));
            let call = Call::new(self.link.keys.history(device), &base, 0);
            self.durable(&script::TOUCH, &call).await?;
        }
        Ok(page)
    }

    /// Up to `size` commands older than `before`, as they stand, and where the next round begins.
    async fn list_round(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        before: Option<u64>,
        size: usize,
    ) -> Result<(Vec<Command>, Option<u64>), StoreError> {
        let keys = &self.link.keys;
        let most = before.map_or("+inf".to_owned(), |before| format!("({before}"));
        // A place is never less than the time of its acceptance in microseconds.
        let least = filter.since.map_or("-inf".to_owned(), |since| (since.0 * 1_000).to_string());
        let mut pipe = redis::pipe();
        pipe.cmd("ZREVRANGEBYSCORE").arg(keys.history(device)).arg(most).arg(least);
        pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(size + 1);
        pipe.cmd("HMGET").arg(keys.session(device)).arg("d");
        let found = self.link.ask(RedisCommand::Read, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?;
        let mut ids = found.list()?;
        let mark = found.list()?.optional_text()?.map_or(Ok(0), |mark| parse(&mark))?;
        let mut rows = Vec::new();
        while !ids.is_done() {
            rows.push((ids.text()?, ids.number()?));
        }
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|(_, seq)| *seq);
        let mut pipe = redis::pipe();
        for (id, _) in &rows {
            pipe.cmd("HGETALL").arg(keys.command(device, id));
        }
        let records = self.link.ask(RedisCommand::Read, &mut pipe).await?;
        let now = self.link.clock.now();
        let mut commands = Vec::new();
        for ((id, _), record) in rows.into_iter().zip(records) {
            let fields = Fields::new(record)?;
            if !fields.is_empty() {
                let command = stored(device, command_id(&id)?, fields)?;
                commands.push(as_seen(command, mark, now));
            }
        }
        Ok((commands, next))
    }

    pub(crate) async fn list_dead(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let mut place = DeadPlace::parse(page.token.as_deref())?;
        let size = page.size.max(1);
        let mut left: Vec<Partition> = self.with_dead(tenant, place.partition).await?;
        left.reverse();
        let mut items = Vec::new();
        while let Some(partition) = left.pop() {
            if partition != place.partition {
                place = DeadPlace { partition, after: None };
            }
            if items.len() == size {
                return Ok(Page { items, next: Some(place.token()) });
            }
            let wanted = (size - items.len()).min(DEAD_BATCH);
            let answer = self.dead_round(tenant, &place, wanted).await?;
            if take_dead(answer, &mut place, &mut items)? {
                left.push(partition);
            }
        }
        Ok(Page { items, next: None })
    }

    /// The partitions from one on that have dead commands of a tenant.
    async fn with_dead(
        &self,
        tenant: &TenantId,
        from: Partition,
    ) -> Result<Vec<Partition>, StoreError> {
        let partitions: Vec<_> = Partition::all().filter(|p| *p >= from).collect();
        let mut pipe = redis::pipe();
        for partition in &partitions {
            pipe.cmd("ZCARD").arg(self.link.keys.dead(*partition, tenant));
        }
        let found = self.link.ask(RedisCommand::List, &mut pipe).await?;
        let mut counts = Reply::new(Value::Array(found))?;
        let mut with = Vec::new();
        for partition in partitions {
            if counts.number()? > 0 {
                with.push(partition);
            }
        }
        Ok(with)
    }

    async fn dead_round(
        &self,
        tenant: &TenantId,
        place: &DeadPlace,
        wanted: usize,
    ) -> Result<Answer, StoreError> {
        let base = self.link.keys.base(place.partition);
        let key = self.link.keys.dead(place.partition, tenant);
        let (score, member) = match &place.after {
            Some((score, member)) => (score.as_str(), member.as_str()),
            None => ("-inf", ""),
        };
        let call = Call::new(key, &base, self.link.not_after())
            .arg(score)
            .arg(member)
            .number(wanted as u64);
        self.durable(&script::DEAD, &call).await
    }
}

/// Adds what one script found, and moves the place behind it; gives whether the partition has more.
fn take_dead(
    mut answer: Answer,
    place: &mut DeadPlace,
    items: &mut Vec<Command>,
) -> Result<bool, StoreError> {
    let more = answer.rest.number()? == 1;
    let mut found = answer.rest.list()?;
    while !found.is_done() {
        let mut row = found.list()?;
        let (dev, id, score) = (row.text()?, row.text()?, row.text()?);
        place.after = Some((score, format!("{dev}:{id}")));
        let Some(device) = parse_dev(&dev) else {
            tracing::error!(dev, "a list of dead commands names no device");
            continue;
        };
        match command_id(&id).and_then(|id| stored(&device, id, row.fields()?)) {
            Ok(command) => items.push(command),
            Err(error) => tracing::error!(%error, %device, "passed over a spoiled dead command"),
        }
    }
    Ok(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_among_the_dead_round_trips_and_others_are_refused() {
        let after = Some(("1795176000000".to_owned(), "1:a:3:x.y:c.1".to_owned()));
        for after in [None, after] {
            let place = DeadPlace { partition: Partition::new(17), after };
            assert_eq!(DeadPlace::parse(Some(&place.token())), Ok(place));
        }
        for bad in ["", "1", "1.", "256..", "x..", "1.2.", "1..m", "1.-inf.m"] {
            assert!(matches!(DeadPlace::parse(Some(bad)), Err(StoreError::Invalid(_))), "{bad}");
        }
    }
}
