//! Driving a dead command again, as a new command.

use std::sync::Arc;

use roost_auth::Caller;
use roost_proto::control::v1;
use roost_proto::convert::Redrive;
use roost_types::{Command, CommandId, CommandSpec, CommandState, DeviceKey, ErrorCode};

use crate::Control;
use crate::accept::{Accepted, durability_out};
use crate::commands::no_such_command;
use crate::refusal::Refusal;

// === impl Control ===

impl Control {
    /// Accepts the successor, then has the dead command name it. Whatever breaks off in between, the
    /// next try finds the same successor, since its id follows from the dead command.
    pub(crate) async fn redrive(
        self: &Arc<Self>,
        caller: Caller,
        request: &v1::RedriveCommandRequest,
    ) -> Result<v1::RedriveCommandResponse, Refusal> {
        let asked = Redrive::from_request(request, self.store.clock.now())?;
        let device = DeviceKey::new(caller.tenant, asked.target.device.clone());
        let found = self.store.mailboxes.get(&device, &asked.target.command, None);
        let dead = self.read(found).await?.ok_or_else(no_such_command)?;
        if dead.state != CommandState::Dead {
            let what =
                format!("the command is {}; only a DEAD one is driven again", dead.state.as_str());
            return Err(Refusal::new(ErrorCode::NotDead, what));
        }
        let id = successor_of(&dead, asked.new_id.as_ref())?;
        let spec = CommandSpec {
            payload: dead.spec.payload.clone(),
            headers: dead.spec.headers.clone(),
            ordering_key: dead.spec.ordering_key.clone(),
            max_attempts: asked.max_attempts.unwrap_or(dead.spec.max_attempts),
            ..CommandSpec::new(id, Arc::clone(&dead.spec.name), asked.expires)
        };
        let control = Arc::clone(self);
        let work = async move { control.replace(dead, spec).await };
        let Accepted { command, already_existed, durability } = self.to_its_end(work).await?;
        Ok(v1::RedriveCommandResponse {
            command: Some((&command).into()),
            already_existed,
            durability: durability_out(durability).into(),
        })
    }

    async fn replace(
        self: Arc<Self>,
        dead: Command,
        spec: CommandSpec,
    ) -> Result<Accepted, Refusal> {
        let id = spec.id.clone();
        let accepted = self.accept(dead.device.clone(), spec, None, false).await?;
        if dead.redriven_as.as_ref() != Some(&id) {
            let settled = self.store.mailboxes.settle_dead(&dead.device, &dead.spec.id, &id);
            // That the dead command is gone meanwhile is as good as its naming the new one.
            let _found = self.change(settled).await.map_err(|refusal| half_done(&id, &refusal))?;
        }
        Ok(accepted)
    }
}

/// The id of the command that takes the place of a dead one.
fn successor_of(dead: &Command, chosen: Option<&CommandId>) -> Result<CommandId, Refusal> {
    match (chosen, &dead.redriven_as) {
        (Some(chosen), Some(known)) if chosen != known => {
            let what = format!(
                "the command was driven again as {known} already; name that id, or none, or drive {known} again should it be dead"
            );
            Err(Refusal::new(ErrorCode::AlreadyExists, what).at("new_command_id"))
        }
        (Some(id), _) | (None, Some(id)) => Ok(id.clone()),
        (None, None) => derived(&dead.spec.id).ok_or_else(|| {
            let what = "the id that follows from the old one would be too long; give one";
            Refusal::new(ErrorCode::FieldMissing, what).at("new_command_id")
        }),
    }
}

/// The id with `~2` behind it, or with the number behind its last `~` raised by one.
fn derived(id: &CommandId) -> Option<CommandId> {
    let text = id.as_str();
    let numbered = text.rsplit_once('~').and_then(|(stem, number)| {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let next = number.parse::<u64>().ok().filter(|_| digits)?.checked_add(1)?;
        Some(format!("{stem}~{next}"))
    });
    CommandId::new(numbered.unwrap_or_else(|| format!("{text}~2"))).ok()
}

/// The new command is accepted, and the dead one still stands among the dead.
fn half_done(id: &CommandId, refusal: &Refusal) -> Refusal {
    tracing::debug!(command.id = %id, ?refusal, "could not settle a dead command");
    let what = format!(
        "the new command {id} is accepted, and the store did not confirm that the dead one is settled; repeat the call to make sure"
    );
    Refusal::new(ErrorCode::Indeterminate, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_an_id() {
        for (id, expected) in [
            ("c", Some("c~2")),
            ("c~2", Some("c~3")),
            ("c~9", Some("c~10")),
            ("c~x", Some("c~x~2")),
            ("c~", Some("c~~2")),
            ("c~2~", Some("c~2~~2")),
            ("c~18446744073709551615", Some("c~18446744073709551615~2")),
        ] {
            let id = CommandId::new(id).unwrap();
            let next = derived(&id);
            assert_eq!(next.as_ref().map(CommandId::as_str), expected, "{id}");
        }
        assert_eq!(derived(&CommandId::new("x".repeat(127)).unwrap()), None);
    }
}
