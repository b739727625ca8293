//! The Lua scripts, and how one is called. What each does stands at the top of its file in `scripts/`.

use std::sync::LazyLock;

use redis::Cmd;
use roost_telemetry::metrics::labels::RedisCommand;

const PRELUDE: &str = include_str!("scripts/prelude.lua");

/// One script, ready to be called.
#[derive(Debug)]
pub(crate) struct Script {
    hashed: redis::Script,
    source: String,
    pub(crate) command: RedisCommand,
}

macro_rules! scripts {
    ($($name:ident $file:literal $flags:literal $command:ident;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new($flags, include_str!(concat!("scripts/", $file)), RedisCommand::$command)
        });)*
        #[cfg(test)]
        static ALL: &[&LazyLock<Script>] = &[$(&$name),*];
    };
}

// All but three run when Redis is full: they free memory, or need very little. A report is sent again as
// one that does, with less in it.
scripts! {
    CLAIM "claim.lua" "allow-oom" Claim;
    RELEASE "release.lua" "allow-oom" Release;
    REVALIDATE "revalidate.lua" "allow-oom" Session;
    END_NODE "end_node.lua" "allow-oom" Session;
    PRUNE "prune.lua" "allow-oom" List;
    ENQUEUE "enqueue.lua" "" Enqueue;
    READ "read.lua" "allow-oom" Read;
    REPORT "report.lua" "" Advance;
    REPORT_WHEN_FULL "report.lua" "allow-oom" Advance;
    CANCEL "cancel.lua" "allow-oom" Cancel;
    GET "get.lua" "allow-oom" Read;
    TOUCH "touch.lua" "allow-oom" Read;
    DEAD "dead.lua" "allow-oom" List;
    SETTLE "settle.lua" "allow-oom" Advance;
    NOTE "note.lua" "" Session;
    DUE "due.lua" "allow-oom" Sweep;
    TALLY "tally.lua" "allow-oom" Sweep;
    HEARTBEAT "heartbeat.lua" "allow-oom" Heartbeat;
    STRIKE_NODE "strike_node.lua" "allow-oom" Nodes;
    NODES "nodes.lua" "allow-oom" Nodes;
    TURN "turn.lua" "allow-oom" Nodes;
    SHED "shed.lua" "allow-oom" Nodes;
    WILD "wild.lua" "allow-oom" Interest;
    WILD_LOAD "wild_load.lua" "allow-oom" Interest;
}

/// One call of a script: its key, and its arguments after the first two.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    key: String,
    nowhere: String,
    args: Vec<Vec<u8>>,
}

/// The text of each script, for whoever wants to know what is in them.
#[cfg(test)]
pub(crate) fn sources() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|script| script.source.as_str())
}

// === impl Script ===

impl Script {
    fn new(flags: &str, body: &str, command: RedisCommand) -> Self {
        let shebang = match flags {
            "" => "#!lua".to_owned(),
            flags => format!("#!lua flags={flags}"),
        };
        let source = format!("{shebang}\n{PRELUDE}\n{body}");
        Self { hashed: redis::Script::new(&source), source, command }
    }

    pub(crate) fn evalsha(&self, call: &Call) -> Cmd {
        call.build("EVALSHA", self.hashed.get_hash())
    }

    pub(crate) fn eval(&self, call: &Call) -> Cmd {
        call.build("EVAL", &self.source)
    }
}

// === impl Call ===

impl Call {
    /// `not_after` is in ms of hub time; 0 for never.
    pub(crate) fn new(key: String, base: &str, not_after: u64) -> Self {
        let args = vec![base.as_bytes().to_vec(), not_after.to_string().into_bytes()];
        Self { key, nowhere: format!("{base}nowhere"), args }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.args.push(arg.as_ref().to_vec());
        self
    }

    pub(crate) fn number(self, arg: u64) -> Self {
        self.arg(arg.to_string())
    }

    fn build(&self, verb: &str, script: &str) -> Cmd {
        let mut cmd = redis::cmd(verb);
        // The second key never exists. It has a cluster refuse the script while their slot moves, where
        // keys that the script derives may be here or there (see `link/redirect.rs`).
        cmd.arg(script).arg(2).arg(&self.key).arg(&self.nowhere);
        for arg in &self.args {
            cmd.arg(arg);
        }
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_says_what_it_takes_and_answers() {
        for script in ALL {
            assert!(script.source.starts_with("#!lua"));
            assert!(script.source.contains("-- KEYS ") && script.source.contains("-- Reply: "));
        }
    }
}
