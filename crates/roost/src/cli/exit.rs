//! How a command ends: exit codes, and failures in words.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// What `--help` says about exit codes.
pub(super) const HELP: &str = "\
Exit codes: 0 succeeded, 1 failed, 2 usage or configuration, 3 a wait timed out, 4 the hub is unavailable.";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It was tried, and did not work.
    Failed = 1,
    /// What was asked makes no sense.
    Usage = 2,
    /// It was accepted; the wait for its end timed out.
    WaitTimedOut = 3,
    /// The hub cannot be reached, or cannot do it at the moment.
    Unavailable = 4,
}

/// Why a command failed, in words, with its exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

// === impl Failure ===

impl Failure {
    /// It was tried, and did not work.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: text.to_string() }
    }

    /// What was asked makes no sense.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(text) }
    }

    /// The hub cannot be reached.
    pub fn unavailable(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Unavailable, ..Self::failed(text) }
    }

    /// How the process is to end.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever read our output has seen enough: `roost device list | head`.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Ok, text: String::new() };
        }
        Self::failed(error)
    }
}
