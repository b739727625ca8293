//! Metrics of the process itself, read from `/proc` when `/metrics` is asked for and rendered here,
//! because CPU seconds are a fractional counter, which the recorder does not have. On a system
//! without `/proc` they are absent.

use std::fmt::Write as _;

/// One reading of the process.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    start_time_seconds: Option<f64>,
    threads: u64,
}

/// The `roost_process_*` metrics in Prometheus' text format; empty without `/proc`.
pub(crate) fn render() -> String {
    read().map(|process| format(&process)).unwrap_or_default()
}

fn read() -> Option<Process> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut process = parse_stat(&stat, ticks_per_second, rustix::param::page_size() as u64)?;
    // The directory being read is itself one of the entries.
    process.open_fds =
        std::fs::read_dir("/proc/self/fd").ok().map(|dir| (dir.count() as u64).saturating_sub(1));
    process.max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let boot = std::fs::read_to_string("/proc/stat").ok().and_then(|text| parse_boot_time(&text));
    process.start_time_seconds = boot.zip(process.start_time_seconds).map(|(b, s)| b + s);
    Some(process)
}

/// Reads `/proc/self/stat`; `start_time_seconds` counts from boot in the answer.
#[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^53")]
fn parse_stat(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Process> {
    // The command name may contain spaces and parentheses: fields count from the last one.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // proc(5) numbers fields from 1, and the first after the name is number 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
    Some(Process {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        start_time_seconds: Some(seconds(field(22)?)),
        resident_bytes: field(24)? * page_bytes,
        open_fds: None,
        max_fds: None,
    })
}

/// Boot time in Unix seconds from `/proc/stat`.
fn parse_boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "byte counts and limits stay below 2^53")]
fn format(process: &Process) -> String {
    let mut text = String::with_capacity(1024);
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            writeln!(text, "# HELP roost_process_{name} {help}\n# TYPE roost_process_{name} {kind}\nroost_process_{name} {value}\n")
                .expect("writing to a String does not fail");
        }
    };
    put(
        "cpu_seconds_total",
        "counter",
        "CPU time used = user + system.",
        Some(process.cpu_seconds),
    );
    put(
        "resident_memory_bytes",
        "gauge",
        "Memory resident in RAM.",
        Some(process.resident_bytes as f64),
    );
    put(
        "open_fds",
        "gauge",
        "Open file descriptors; every device connection is one.",
        process.open_fds.map(|n| n as f64),
    );
    put(
        "max_fds",
        "gauge",
        "Soft limit of open file descriptors.",
        process.max_fds.map(|n| n as f64),
    );
    put(
        "start_time_seconds",
        "gauge",
        "Start of the process, in Unix time.",
        process.start_time_seconds,
    );
    put("threads", "gauge", "Threads of the process.", Some(process.threads as f64));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_past_a_hostile_name() {
        let stat = "42 (ro) st 9) R 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 7 0 12300 \
                    1000000 250 18446744073709551615 1 1 0";
        let process = parse_stat(stat, 100, 4096).unwrap();
        assert!((process.cpu_seconds - 2.0).abs() < 1e-9);
        assert_eq!(process.threads, 7);
        assert_eq!(process.resident_bytes, 250 * 4096);
        assert!((process.start_time_seconds.unwrap() - 123.0).abs() < 1e-9);
        assert_eq!(parse_stat("no parenthesis", 100, 4096), None);
        assert_eq!(parse_stat("1 (x) R 1", 100, 4096), None);
    }

    #[test]
    fn this_process_is_read() {
        let process = read().expect("the tests run on Linux");
        assert!(process.resident_bytes > 100_000);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.threads >= 1);
        let boot_of_this_code = 1_577_836_800.0; // 2020-01-01
        assert!(process.start_time_seconds.unwrap() > boot_of_this_code);
        let text = format(&process);
        for name in ["cpu_seconds_total", "open_fds", "max_fds", "start_time_seconds", "threads"] {
            assert!(text.contains(&format!("\nroost_process_{name} ")), "{name} in {text}");
        }
    }
}
