//! How much is logged, while the node runs: what was configured, or something else for a while. The
//! admin server offers it as `/log-level`; how lines look is in `logging.rs`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::reload;

use crate::logging::{LogError, filter};

/// Changes how much this process logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: Arc<str>,
    changed: Arc<Mutex<Option<Change>>>,
}

/// A level other than the configured one.
#[derive(Clone, Debug)]
struct Change {
    level: String,
    until: Instant,
}

/// How much is logged now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLevel {
    /// What is in force.
    pub level: String,
    /// What the configuration says.
    pub configured: String,
    /// In how many seconds that holds again; absent where it does.
    pub seconds_left: Option<u64>,
}

// === impl LogControl ===

impl LogControl {
    pub(crate) fn new(handle: reload::Handle<EnvFilter, Registry>, configured: &str) -> Self {
        Self { handle, configured: configured.into(), changed: Arc::default() }
    }

    /// Logs at another level, or list of `target=level`, for a while; replaces an earlier change.
    pub fn set(&self, level: &str, lasts: Duration) -> Result<(), LogError> {
        let wanted = filter(level)?;
        let mut changed = self.changed.lock();
        // Before it holds: it may be "off".
        tracing::warn!(level, seconds = lasts.as_secs(), "the log level is changed for a while");
        self.apply(wanted);
        *changed = Some(Change { level: level.to_owned(), until: Instant::now() + lasts });
        Ok(())
    }

    /// Goes back to the configured level.
    pub fn reset(&self) {
        self.end(|_| true);
    }

    /// Goes back to the configured level where the time of a change is over.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.end(|change| change.until <= now);
    }

    /// What is in force.
    pub fn level(&self) -> LogLevel {
        let changed = self.changed.lock();
        let configured = self.configured.to_string();
        match &*changed {
            None => LogLevel { level: configured.clone(), configured, seconds_left: None },
            Some(Change { level, until }) => LogLevel {
                level: level.clone(),
                configured,
                seconds_left: Some(until.saturating_duration_since(Instant::now()).as_secs()),
            },
        }
    }

    fn end(&self, over: impl Fn(&Change) -> bool) {
        let mut changed = self.changed.lock();
        if changed.as_ref().is_some_and(over) {
            *changed = None;
            let level = &*self.configured;
            self.apply(filter(level).expect("it was read when logging was set up"));
            tracing::warn!(level, "the log level is as configured again");
        }
    }

    fn apply(&self, wanted: EnvFilter) {
        if let Err(error) = self.handle.reload(wanted) {
            // The subscriber has gone: nothing is logged through it at any level.
            tracing::debug!(%error, "the log level could not be changed");
        }
    }
}
