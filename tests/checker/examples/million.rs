//! Writes a run of a million operations to memory as JSON lines, reads it and checks it, and prints
//! how long that took: `cargo run --release -p roost-checker --example million [OPERATIONS]`.
#![expect(clippy::print_stdout, reason = "this is a program whose output is its purpose")]

use std::process::ExitCode;

use roost_checker::{Event, History, Kind, Options, ReadError, check, monotonic_us};

/// A back end sends, the device answers: two operations for each command.
fn make(operations: u64) -> Result<History, ReadError> {
    let mut history = History::new();
    for n in 0..operations / 2 {
        let (device, id) = (format!("d{}", n % 2_000), format!("01k{n:023}"));
        let body = format!("{n:032x}");
        let (t, op) = (n * 100, 2 * n + 1);
        let of = |kind| Event::of_device(kind, "default", &device).command(&id);
        let send = Event { expires_ms: Some(t / 1_000 + 60_000), ..of(Kind::Send).body(&body) };
        history.add(&send.at(t).op(op))?;
        let ok = Event { seq: Some(n), created: Some(true), ..Event::answer(Kind::Ok, op) };
        history.add(&ok.at(t + 20))?;
        history.add(&of(Kind::Deliver).body(&body).at(t + 30))?;
        let done = Event { state: "SUCCEEDED".into(), ..of(Kind::Result) };
        history.add(&done.at(t + 40).op(op + 1))?;
        history.add(&Event::answer(Kind::Ok, op + 1).at(t + 50))?;
        history.add(&Event { state: "SUCCEEDED".into(), ..of(Kind::Observe) }.at(t + 60))?;
    }
    Ok(history)
}

fn main() -> ExitCode {
    let operations =
        std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut file = Vec::new();
    let made = make(operations).map(|history| history.write(&mut file));
    if !matches!(made, Ok(Ok(()))) {
        println!("the history cannot be made: {made:?}");
        return ExitCode::FAILURE;
    }
    let start = monotonic_us();
    let read = History::read(&file[..]);
    let after_read = monotonic_us();
    let Ok(mut history) = read else {
        println!("the history cannot be read: {read:?}");
        return ExitCode::FAILURE;
    };
    let report = check(&mut history, &Options::default());
    let after_check = monotonic_us();
    println!("{report}");
    println!(
        "{} MB of JSON lines: read in {} ms, checked in {} ms",
        file.len() / 1_000_000,
        (after_read - start) / 1_000,
        (after_check - after_read) / 1_000
    );
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
