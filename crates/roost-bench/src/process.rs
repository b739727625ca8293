//! What the operating system says about a process: memory, CPU time, file limits. Linux only.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it (`VmRSS`).
    pub resident: u64,
    /// What it allocated (`RssAnon`), without the program itself and its libraries.
    pub anonymous: u64,
}

// === impl Memory ===

impl Memory {
    /// Of the process with this id, now.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let file = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Self::parse(&text).with_context(|| format!("{file} has no VmRSS or RssAnon"))
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 =
                line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
    }
}

/// CPU time that the process with this id has used, user and system.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let ticks = parse_ticks(&text).with_context(|| format!("{file} is not as expected"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// Fields 14 and 15, counted after the name, which may hold blanks and parentheses.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Raises the number of files and sockets that this process may have open as far as it may, and
/// says how many that is.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_of_a_process_are_read() {
        let status = "Name:\troost\nVmRSS:\t   1024 kB\nRssAnon:\t     512 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!((memory.resident, memory.anonymous), (1 << 20, 512 << 10));
        assert_eq!(Memory::parse("Name:\troost\n"), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0";
        assert_eq!(parse_ticks(stat), Some(300));
        let own = Memory::of(std::process::id()).unwrap();
        assert!(own.resident >= own.anonymous && own.anonymous > 0);
        assert!(cpu_time(std::process::id()).is_ok());
    }
}
