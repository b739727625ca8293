//! `roost bench`: flags and figures. What is measured, and how, is in `roost-bench`.

use std::io::IsTerminal as _;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use roost_bench::idle::{self, BenchStore, IdleOptions, IdleReport};

use super::output::Output;
use super::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// What an idle device costs: starts a hub, connects devices to it over loopback, and reads the
    /// hub's resident memory before and after.
    Idle(IdleArgs),
}

#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    /// How many devices.
    #[arg(long, visible_alias = "devices", default_value = "19000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    n: u32,
    /// The hub's Redis, instead of one started for the benchmark from the PATH.
    #[arg(long, value_name = "URL", conflicts_with = "memory")]
    redis: Option<String>,
    /// The hub keeps everything in its memory, which is counted then.
    #[arg(long)]
    memory: bool,
    /// Devices connect by TLS, with a certificate made for the benchmark.
    #[arg(long)]
    tls: bool,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &BenchCommand) -> Result<Exit, Failure> {
    let BenchCommand::Idle(args) = command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let output = Output::new(args.json);
    let bar = progress(args);
    let options = IdleOptions {
        program: std::env::current_exe()?,
        devices: args.n,
        store: match &args.redis {
            Some(url) => BenchStore::Redis(url.clone()),
            None if args.memory => BenchStore::Memory,
            None => BenchStore::OwnRedis,
        },
        tls: args.tls,
    };
    let report = runtime.block_on(idle::run(options, |connected| bar.set_position(connected)));
    bar.finish_and_clear();
    let report = report.map_err(|error| Failure::failed(format!("{error:#}")))?;
    output.show(&report, || human(&report))?;
    Ok(Exit::Ok)
}

/// Drawn on standard error if that is a terminal.
fn progress(args: &IdleArgs) -> ProgressBar {
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} devices connected");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(args.n.into()).with_style(style)
}

fn human(report: &IdleReport) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people; memory is far below 2^52")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "{} idle devices with token, session and one subscription, {}; store: {}\n\
         \n  resident   {:8.1} MiB → {:8.1} MiB   {:7.0} bytes a device\
         \n  allocated  {:8.1} MiB → {:8.1} MiB   {:7.0} bytes a device\
         \n  connecting took {:.1} s, and {:.0} µs of the hub's CPU each",
        report.devices,
        if report.tls { "by TLS 1.3" } else { "without TLS" },
        report.store,
        mib(report.before.resident),
        mib(report.after.resident),
        report.resident_bytes_per_device,
        mib(report.before.anonymous),
        mib(report.after.anonymous),
        report.anonymous_bytes_per_device,
        report.connect_seconds,
        report.connect_cpu_us,
    )
}
