//! Lists of commands, a page at a time: those of a device, and the dead ones.

use roost_auth::Caller;
use roost_cluster::{CommandFilter, Mailboxes, Page, PageRequest, StoreError};
use roost_proto::control::v1;
use roost_proto::convert::{ListCommands, ListDead};
use roost_types::{Command, CommandState, DeviceKey, TenantId};

use crate::Control;
use crate::commands::{at_page_token, page_token};
use crate::refusal::Refusal;

/// How many commands are read from the store at once, so that a page is bounded in bytes too.
const READ_COMMANDS: usize = 8;
/// How often the store is read for one page at the most, should it give empty pages.
const MAX_READS: usize = 150;
/// A page of commands ends once it has as many payload bytes: clients refuse 4 MiB by default.
const PAGE_BYTES: usize = 2 << 20;

/// What a list is taken from.
enum Source {
    /// The commands of a device.
    Device(DeviceKey, CommandFilter),
    /// The dead commands of a device that were not driven again.
    DeadOf(DeviceKey),
    /// Those of a tenant.
    Dead(TenantId),
}

// === impl Control ===

impl Control {
    pub(crate) async fn list_commands(
        &self,
        caller: Caller,
        request: &v1::ListCommandsRequest,
    ) -> Result<v1::ListCommandsResponse, Refusal> {
        let ListCommands { device, size, state, since, until } = ListCommands::try_from(request)?;
        let filter = CommandFilter { state, since, until };
        let source = Source::Device(DeviceKey::new(caller.tenant, device), filter);
        let (commands, next_page_token) = self.page(&source, size, &request.page_token).await?;
        Ok(v1::ListCommandsResponse { commands, next_page_token })
    }

    pub(crate) async fn list_dead(
        &self,
        caller: Caller,
        request: &v1::ListDeadCommandsRequest,
    ) -> Result<v1::ListDeadCommandsResponse, Refusal> {
        let ListDead { device, size } = ListDead::try_from(request)?;
        let source = match device {
            Some(device) => Source::DeadOf(DeviceKey::new(caller.tenant, device)),
            None => Source::Dead(caller.tenant),
        };
        let (commands, next_page_token) = self.page(&source, size, &request.page_token).await?;
        Ok(v1::ListDeadCommandsResponse { commands, next_page_token })
    }

    /// At most `wanted` commands, and where the next page begins.
    async fn page(
        &self,
        source: &Source,
        wanted: usize,
        token: &str,
    ) -> Result<(Vec<v1::Command>, String), Refusal> {
        let mut token = page_token(token);
        let (mut commands, mut bytes) = (Vec::new(), 0);
        for _ in 0..MAX_READS {
            let size = READ_COMMANDS.min(wanted - commands.len());
            let page = PageRequest { size, token };
            let read = source.read(&*self.store.mailboxes, &page);
            let read = self.read(read).await.map_err(at_page_token)?;
            bytes += read.items.iter().map(payload_bytes).sum::<usize>();
            commands.extend(read.items.iter().map(v1::Command::from));
            token = read.next;
            if token.is_none() || commands.len() >= wanted || bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok((commands, token.unwrap_or_default()))
    }
}

// === impl Source ===

impl Source {
    async fn read(
        &self,
        mailboxes: &dyn Mailboxes,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        match self {
            Self::Device(device, filter) => mailboxes.list(device, filter, page).await,
            Self::Dead(tenant) => mailboxes.dead(tenant, page).await,
            Self::DeadOf(device) => {
                let state = Some(CommandState::Dead);
                let filter = CommandFilter { state, ..CommandFilter::default() };
                let mut listed = mailboxes.list(device, &filter, page).await?;
                listed.items.retain(|command| command.redriven_as.is_none());
                Ok(listed)
            }
        }
    }
}

fn payload_bytes(command: &Command) -> usize {
    let asked = command.spec.payload.as_ref();
    let answered = command.result.as_ref().and_then(|result| result.payload.as_ref());
    let late = command.late.as_ref().and_then(|late| late.result.payload.as_ref());
    asked.into_iter().chain(answered).chain(late).map(roost_types::Payload::len).sum()
}
