//! `BatchSendCommandsRequest`: one command for many devices.

use std::collections::HashSet;

use roost_types::{CommandSpec, DeviceId, UnixMillis};

use super::Expiry;
use super::send::{Body, Wait};
use crate::control::v1;
use crate::convert::violation::Checks;
use crate::convert::{Violation, Violations, device_id};

/// How many devices a batch has at the most.
pub const MAX_BATCH: usize = 10_000;
/// How many wrong device ids are told one by one. A status travels in the trailers of the answer,
/// of which some clients take 8 KiB only.
const TOLD: usize = 10;

/// A checked `BatchSendCommandsRequest`.
#[derive(Debug, Clone)]
pub struct BatchSend {
    /// For whom: at least one, none twice.
    pub devices: Vec<DeviceId>,
    /// What to wait for with each device; `None` is nothing.
    pub wait: Option<Wait>,
    /// The least that each acceptance must survive, never unspecified; `None` is all that the hub gives.
    pub durability: Option<v1::Durability>,
    spec: CommandSpec,
    expiry: Expiry,
}

// === impl BatchSend ===

impl BatchSend {
    /// Checks a request that came at `now`, by hub time. `max_payload` bounds the payload, in bytes.
    pub fn from_request(
        request: v1::BatchSendCommandsRequest,
        now: UnixMillis,
        max_payload: usize,
    ) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let devices = devices(&request.device_ids, &mut checks);
        let body = match request.command {
            Some(command) => {
                let mut inner = Checks::default();
                if !command.device_id.is_empty() {
                    let what = "must be empty: device_ids names the devices";
                    inner.note(Violation::invalid("device_id", what));
                }
                let body = Body::check(command, now, max_payload, &mut inner);
                checks.note_within("command", inner);
                body
            }
            None => checks.take(Err(Violation::missing("command", "the command to send"))),
        };
        let whole = devices.zip(body).map(|(devices, body)| {
            let Body { spec, expiry, wait, durability } = body;
            Self { devices, wait, durability, spec, expiry }
        });
        checks.finish(whole)
    }

    /// The command for a device whose turn comes at `now`, by hub time: a `ttl` counts from there. An
    /// `expire_time` may be over by then.
    pub fn spec_at(&self, now: UnixMillis) -> Result<CommandSpec, Violation> {
        Ok(CommandSpec { expires: self.expiry.of(now)?, ..self.spec.clone() })
    }

    /// The id that the command has with each device.
    pub fn command_id(&self) -> &roost_types::CommandId {
        &self.spec.id
    }
}

/// The devices, with every mistake noted under its index.
fn devices(ids: &[String], checks: &mut Checks) -> Option<Vec<DeviceId>> {
    if ids.is_empty() {
        return checks.take(Err(Violation::missing("device_ids", "at least one device")));
    }
    if ids.len() > MAX_BATCH {
        let what = format!("has {} devices; at most {MAX_BATCH} are allowed", ids.len());
        return checks.take(Err(Violation::invalid("device_ids", what)));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    let mut devices = Vec::with_capacity(ids.len());
    let mut wrong = 0;
    for (index, id) in ids.iter().enumerate() {
        match one_device(id, index, &mut seen) {
            Ok(device) => devices.push(device),
            Err(violation) => {
                wrong += 1;
                if wrong <= TOLD {
                    checks.note(violation);
                }
            }
        }
    }
    if wrong > TOLD {
        let what = format!("has {} more that are wrong or named twice", wrong - TOLD);
        checks.note(Violation::invalid("device_ids", what));
    }
    (wrong == 0).then_some(devices)
}

fn one_device<'a>(
    id: &'a str,
    index: usize,
    seen: &mut HashSet<&'a str>,
) -> Result<DeviceId, Violation> {
    let field = format!("device_ids[{index}]");
    let device = match device_id(id) {
        Ok(device) => device,
        Err(violation) => return Err(Violation { field, ..violation }),
    };
    if seen.insert(id) {
        return Ok(device);
    }
    Err(Violation::invalid(&field, format!("names {id} a second time; name each device once")))
}
