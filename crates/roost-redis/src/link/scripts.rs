//! Running scripts: by their hash, in full where a server does not know it, one or many at once, and with
//! or without waiting for copies.

use redis::Cmd;
use roost_cluster::{Durability, StoreError};
use roost_telemetry::metrics::labels::RedisOutcome;
use tokio::time::Duration;

use crate::error::is_no_script;
use crate::reply::Reply;
use crate::script::{Call, Script};

use super::redirect::Way;
use super::{Answer, Fault, Found, Link};

// === impl Link: scripts ===

impl Link {
    /// Runs a script, once.
    pub(crate) async fn run(&self, script: &Script, call: &Call) -> Result<Answer, StoreError> {
        self.run_then(script, call, None).await
    }

    /// Runs a script, and another command behind it on the same way, whose answer nobody needs.
    pub(crate) async fn run_then(
        &self,
        script: &Script,
        call: &Call,
        mut then: Option<Cmd>,
    ) -> Result<Answer, StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.evalsha(call));
        let sharded = self.map.load().is_sharded();
        if let Some(then) = then.take_if(|_| !sharded) {
            pipe.add_command(then);
        }
        let mut answer = first(self.each(script.command, &mut pipe, Way::Plain).await.0)?;
        if is_unknown(&answer) {
            answer = self.in_full(script, call, Way::Plain).await?.0;
        }
        if let Some(then) = then {
            // It may be another master's: rung beside, and lost if too many wait.
            drop(self.bells.try_send(then));
        }
        self.conclude(script, answer)
    }

    /// Runs a script once for each call, all on one way to each master.
    pub(crate) async fn run_all(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let answers = self.run_each(script, calls, Way::Plain).await?;
        Ok(answers.into_iter().map(|(answer, _)| answer).collect())
    }

    /// Runs a script whose effect is to be worth what the hub's durability promises, and says what was
    /// reached. `Memory` where fewer copies than asked confirmed in time.
    pub(crate) async fn run_durable(
        &self,
        script: &Script,
        call: &Call,
    ) -> Result<(Answer, Durability), StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.evalsha(call));
        let (found, worth) = self.each(script.command, &mut pipe, self.durable_way()).await;
        let (mut answer, mut reached) = (first(found)?, least(&worth));
        if is_unknown(&answer) {
            (answer, reached) = self.in_full(script, call, self.durable_way()).await?;
        }
        Ok((self.conclude(script, answer)?, reached))
    }

    /// The same once for each call, all on one way to each master.
    pub(crate) async fn run_all_durable(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Result<(Answer, Durability), StoreError>>, StoreError> {
        let answers = self.run_each(script, calls, self.durable_way()).await?;
        let with = |(answer, reached): (Result<Answer, _>, _)| answer.map(|found| (found, reached));
        Ok(answers.into_iter().map(with).collect())
    }

    fn durable_way(&self) -> Way {
        if self.promise.is_more_than_memory() { Way::Durable } else { Way::Plain }
    }

    /// An error of one call stands at its place; where all have the same lack of an answer, it is the
    /// error of the whole.
    async fn run_each(
        &self,
        script: &Script,
        calls: &[Call],
        way: Way,
    ) -> Result<Vec<(Result<Answer, StoreError>, Durability)>, StoreError> {
        let mut pipe = redis::pipe();
        for call in calls {
            pipe.add_command(script.evalsha(call));
        }
        let (found, worth) = self.each(script.command, &mut pipe, way).await;
        let lost = |found: &Found| matches!(found, Err(Fault::Unanswered(_)));
        if !found.is_empty() && found.iter().all(lost) {
            return first(found).map(|_| Vec::new());
        }
        let mut answers = Vec::with_capacity(found.len());
        for ((call, mut answer), mut reached) in calls.iter().zip(found).zip(worth) {
            if is_unknown(&answer) {
                (answer, reached) = match self.in_full(script, call, way).await {
                    Ok(again) => again,
                    Err(error) => (Err(Fault::Unanswered(error)), Durability::Memory),
                };
            }
            answers.push((self.conclude(script, answer), reached));
        }
        Ok(answers)
    }

    /// Sends a script that a server did not know by its hash.
    async fn in_full(
        &self,
        script: &Script,
        call: &Call,
        way: Way,
    ) -> Result<(Found, Durability), StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.eval(call));
        let (found, worth) = self.each(script.command, &mut pipe, way).await;
        Ok((first(found)?, least(&worth)))
    }

    /// Runs the heartbeat: a refused one brings the time along too. It waits for no turn: behind
    /// everybody who reconnects it would come too late.
    pub(crate) async fn beat(&self, call: &Call) -> Result<Answer, StoreError> {
        let answer = self.send_beat(call).await;
        if !answer.as_ref().is_ok_and(|answer| matches!(answer.tag.as_str(), "OK" | "FENCED")) {
            self.note_refusal();
        }
        answer
    }

    async fn send_beat(&self, call: &Call) -> Result<Answer, StoreError> {
        let script = &crate::script::HEARTBEAT;
        let send = async |cmd: Cmd| {
            let mut pipe = redis::pipe();
            pipe.add_command(cmd);
            first(self.each(script.command, &mut pipe, Way::First).await.0)
        };
        let mut answer = send(script.evalsha(call)).await?;
        if is_unknown(&answer) {
            answer = send(script.eval(call)).await?;
        }
        Self::read(answer)
    }

    fn read(answer: Found) -> Result<Answer, StoreError> {
        let mut rest = Reply::new(answer.map_err(Fault::error)?)?;
        Ok(Answer { tag: rest.text()?, rest })
    }

    fn conclude(&self, script: &Script, answer: Found) -> Result<Answer, StoreError> {
        let Answer { tag, rest } = Self::read(answer)?;
        let refused = match tag.as_str() {
            "STALE" => StoreError::Stale,
            "FENCED" => StoreError::Fenced,
            _ => return Ok(Answer { tag, rest }),
        };
        self.metrics().observe(script.command, RedisOutcome::Fenced, Duration::ZERO);
        Err(refused)
    }
}

/// The first of the answers; no answer at all is an error.
fn first(mut found: Vec<Found>) -> Result<Found, StoreError> {
    if found.is_empty() {
        return Err(StoreError::Corrupt("Redis answered nothing".into()));
    }
    match found.swap_remove(0) {
        Err(Fault::Unanswered(error)) => Err(error),
        answered => Ok(answered),
    }
}

/// What the least durable of all is worth.
fn least(worth: &[Durability]) -> Durability {
    worth.iter().copied().min().unwrap_or(Durability::Memory)
}

/// Whether a script has to be sent in full.
fn is_unknown(found: &Found) -> bool {
    matches!(found, Err(Fault::Answered(error)) if is_no_script(error))
}
