//! A whole run in memory and as JSON lines. Strings are kept once and events point to them, so that
//! millions of events fit. What is wrong with a run is found in `check/`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::Arc;

use foldhash::fast::RandomState;
use roost_types::CommandState;

use crate::{Event, Kind};

/// A string of the history; 0 is the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Name(u32);

/// An event as kept: see [`Event`] for the fields.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) t: u64,
    pub(crate) op: Option<u64>,
    pub(crate) seq: Option<u64>,
    pub(crate) pos: Option<u64>,
    /// `expires_ms`, `claimed_ms`, `hub_ms` or `back_to`: no kind has two of them.
    pub(crate) number: Option<u64>,
    /// `handed` or `since`.
    pub(crate) moment: Option<u64>,
    pub(crate) tenant: Name,
    /// The device, or the subscriber.
    pub(crate) device: Name,
    /// The command, or the topic.
    pub(crate) id: Name,
    /// The ordering key, or the session that was replaced.
    pub(crate) key: Name,
    pub(crate) body: Name,
    pub(crate) session: Name,
    pub(crate) kind: Kind,
    pub(crate) state: Option<CommandState>,
    pub(crate) created: Option<bool>,
    pub(crate) volatile: bool,
    pub(crate) qos: u8,
}

/// Every event of a run.
#[derive(Debug, Default)]
pub struct History {
    by_text: HashMap<Arc<str>, Name, RandomState>,
    texts: Vec<Arc<str>>,
    rows: Vec<Row>,
    /// Whether the rows are known to be in the order of time.
    unsorted: bool,
    highest_op: u64,
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the history cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not an event.
    #[error("line {line} is not an event: {error}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// An event names a state that does not exist.
    #[error("{0:?} is not a command's state; QUEUED is one")]
    State(String),
}

// === impl History ===

impl History {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds an event with the time that it bears.
    pub fn add(&mut self, event: &Event<'_>) -> Result<(), ReadError> {
        let state = match &*event.state {
            "" => None,
            text => {
                Some(CommandState::parse(text).ok_or_else(|| ReadError::State(text.to_owned()))?)
            }
        };
        let row = Row {
            t: event.t,
            op: event.op,
            seq: event.seq,
            pos: event.pos,
            number: event.expires_ms.or(event.claimed_ms).or(event.hub_ms).or(event.back_to),
            moment: event.handed.or(event.since),
            tenant: self.name(&event.tenant),
            device: self.one_of(&event.device, &event.subscriber),
            id: self.one_of(&event.id, &event.topic),
            key: self.one_of(&event.key, &event.replaced),
            body: self.name(&event.body),
            session: self.name(&event.session),
            kind: event.e,
            state,
            created: event.created,
            volatile: event.volatile,
            qos: event.qos,
        };
        self.unsorted |= self.rows.last().is_some_and(|last| last.t > row.t);
        self.highest_op = self.highest_op.max(row.op.unwrap_or(0));
        self.rows.push(row);
        Ok(())
    }

    /// Reads JSON lines, one event each; empty lines are skipped. See the README for the format.
    pub fn read(mut input: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::new();
        let mut text = String::new();
        let mut line = 0;
        loop {
            text.clear();
            line += 1;
            if input.read_line(&mut text)? == 0 {
                return Ok(history);
            }
            if text.trim().is_empty() {
                continue;
            }
            let event = serde_json::from_str(&text);
            history.add(&event.map_err(|error| ReadError::Line { line, error })?)?;
        }
    }

    /// Writes it as JSON lines.
    pub fn write(&self, mut output: impl Write) -> std::io::Result<()> {
        for index in 0..self.rows.len() {
            serde_json::to_writer(&mut output, &self.event(index))?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }

    /// Adds the history of another writer of the same run, on the same clock. Its operations get
    /// numbers of their own.
    pub fn append(&mut self, other: &Self) -> Result<(), ReadError> {
        let base = self.highest_op;
        for index in 0..other.rows.len() {
            let mut event = other.event(index);
            event.op = event.op.map(|op| op + base);
            self.add(&event)?;
        }
        Ok(())
    }

    /// The event at this place, from 0.
    ///
    /// # Panics
    /// If there is none.
    pub fn event(&self, index: usize) -> Event<'_> {
        let row = &self.rows[index];
        let text = |name| Cow::Borrowed(self.text(name));
        let mut event = Event::new(row.kind);
        (event.t, event.op, event.seq, event.pos) = (row.t, row.op, row.seq, row.pos);
        (event.tenant, event.body, event.session) =
            (text(row.tenant), text(row.body), text(row.session));
        match row.kind {
            Kind::Subscribed | Kind::Gap | Kind::Message => event.subscriber = text(row.device),
            _ => event.device = text(row.device),
        }
        match row.kind {
            Kind::Subscribed | Kind::Gap | Kind::Message | Kind::Publish => {
                event.topic = text(row.id);
            }
            _ => event.id = text(row.id),
        }
        match row.kind {
            Kind::Claimed | Kind::Reclaimed => event.replaced = text(row.key),
            _ => event.key = text(row.key),
        }
        match row.kind {
            Kind::Claimed | Kind::Reclaimed => event.claimed_ms = row.number,
            Kind::Clock => event.hub_ms = row.number,
            Kind::Failover => event.back_to = row.number,
            _ => event.expires_ms = row.number,
        }
        match row.kind {
            Kind::Observe => event.since = row.moment,
            _ => event.handed = row.moment,
        }
        if let Some(state) = row.state {
            event.state = Cow::Borrowed(state.as_str());
        }
        (event.created, event.volatile, event.qos) = (row.created, row.volatile, row.qos);
        event
    }

    /// The event at this place as its line in a file.
    pub fn line(&self, index: usize) -> String {
        serde_json::to_string(&self.event(index))
            .expect("an event has no maps and no numbers of doubt")
    }

    /// Brings the events into the order of time; those of one moment stay as they were added.
    pub fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.rows.sort_by_key(|row| row.t);
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn text(&self, name: Name) -> &str {
        match name.0 {
            0 => "",
            n => &self.texts[n as usize - 1],
        }
    }

    fn one_of(&mut self, first: &str, second: &str) -> Name {
        self.name(if first.is_empty() { second } else { first })
    }

    fn name(&mut self, text: &str) -> Name {
        if text.is_empty() {
            return Name::default();
        }
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        let shared: Arc<str> = text.into();
        self.texts.push(Arc::clone(&shared));
        let name = Name(u32::try_from(self.texts.len()).expect("fewer than 2^32 strings in a run"));
        self.by_text.insert(shared, name);
        name
    }
}

// === impl Name ===

impl Name {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}
