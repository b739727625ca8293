//! Faults that the hub does not have, planted to see that a run would find them.

use anyhow::{Context as _, ensure};
use roost_checker::{History, Kind};

use crate::backend::{Sent, Wish};
use crate::load::LONG;
use crate::names::Name;
use crate::store::{key_of, timeline_key};
use crate::world::World;

/// Takes out of a history all that became of its first delivered command after it was accepted.
pub(crate) fn drop_delivery(history: &History) -> anyhow::Result<History> {
    let mut first = (0..history.len()).filter(|index| history.event(*index).e == Kind::Deliver);
    let first = first.next().context("nothing was delivered in this run")?;
    let device = history.event(first).device.into_owned();
    let (tenant, id) =
        (history.event(first).tenant.into_owned(), history.event(first).id.into_owned());
    let gone = [Kind::Deliver, Kind::Execute, Kind::Observe, Kind::Result, Kind::Apply];
    let mut without = History::new();
    let mut answers = vec![];
    for index in 0..history.len() {
        let event = history.event(index);
        let same = event.device == device && event.tenant == tenant && event.id == id;
        let answered = event.op.is_some_and(|op| answers.contains(&op));
        if same && gone.contains(&event.e) {
            answers.extend(event.op);
        } else if !answered {
            let mut event = event;
            // An answer that names an end would tell of it too.
            if event.e == Kind::Ok {
                event.state = "".into();
            }
            without.add(&event)?;
        }
    }
    Ok(without)
}

/// Has the hub accept a command for a device that is not there, and removes it from Redis.
pub(crate) async fn lose_command(world: &mut World) -> anyhow::Result<()> {
    let name = Name::extra("planted");
    let wish = Wish::new(&name, "planted".to_owned(), &world.journal, LONG);
    let sent = world.backends.send(&wish).await;
    ensure!(matches!(sent, Sent::Accepted(_)), "the planted command was not accepted: {sent:?}");
    let device = name.key();
    let record = format!("{}:{}", key_of(&device, "c"), wish.id);
    for key in [record, key_of(&device, "q")] {
        world.store.server_of(&key).await?.call(&["DEL", &key]).await?;
    }
    Ok(())
}

/// Has a device's history say that a session gave it a command that was not its session.
pub(crate) async fn stale_session(world: &mut World) -> anyhow::Result<()> {
    let name = world.fleet.members()[0].name.clone();
    let key = timeline_key(&name.key());
    let session = "0".repeat(32);
    let fields =
        [world.journal.hub_ms().to_string(), "X".into(), "planted".into(), "1".into(), session];
    let fields = fields.map(|field| format!("{}:{field}", field.len()));
    let entry = fields.concat();
    world.store.server_of(&key).await?.call(&["RPUSH", &key, &entry]).await?;
    Ok(())
}
