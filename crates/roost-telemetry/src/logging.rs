//! Where log lines go and what they look like: to standard error, for people or as one JSON object
//! a line. What is logged is decided where it happens, how much of it in `log_level.rs`.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter, format};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::LogControl;
use crate::trace;

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message` and the event's fields; within
    /// a recorded trace also `trace_id` and `span_id`.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "log level {given:?} is not right: {problem}; use off, error, warn, info, debug or trace, \
         or a list such as `info,roost_edge=debug`"
    )]
    Filter {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another part of the process has set up logging before.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sends this process's log lines to standard error. Call it once, first.
///
/// `level` is a level, or a list of `target=level`, comma-separated; it can be changed by what is
/// given back.
pub fn init_tracing(format: LogFormat, level: &str) -> Result<LogControl, LogError> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, control) = subscriber(format, level, colours, std::io::stderr)?;
    tracing_subscriber::util::SubscriberInitExt::try_init(subscriber)
        .map_err(|_| LogError::AlreadySet)?;
    Ok(control)
}

/// Whether this can be read as a level, or a list of `target=level`.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(drop)
}

/// The subscriber behind [`init_tracing`], writing to `writer`: for tests that read log lines.
pub fn subscriber<W>(
    format: LogFormat,
    level: &str,
    colours: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, LogControl), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Human => Box::new(lines.with_ansi(colours)),
        LogFormat::Json => {
            let json = format::format().json().flatten_event(true).with_span_list(false);
            let fields = format::JsonFields::new();
            Box::new(lines.with_ansi(false).fmt_fields(fields).event_format(WithTrace(json)))
        }
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    Ok((Box::new(subscriber), LogControl::new(handle, level)))
}

/// JSON lines that say which trace they belong to.
struct WithTrace<F>(F);

// === impl WithTrace ===

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(place) = trace::current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(rest) = line.strip_prefix('{') else {
            return writer.write_str(&line);
        };
        // `00-<trace>-<span>-01`.
        let place = place.to_string();
        let (trace, span) = (&place[3..35], &place[36..52]);
        write!(writer, r#"{{"trace_id":"{trace}","span_id":"{span}",{rest}"#)
    }
}

pub(crate) fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let wrong = |problem: String| LogError::Filter { given: level.to_owned(), problem };
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    for directive in &directives {
        // `EnvFilter` takes a bare word for a target and then logs nothing else: a typo would
        // silence the hub.
        if !directive.contains('=') && !is_level(directive) {
            return Err(wrong(format!("{directive:?} is not a level")));
        }
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| wrong(error.to_string()))
}

fn is_level(word: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"].iter().any(|l| l.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    /// Collects what a subscriber writes.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, level: &str) -> String {
        lines_of(format, level, |_| {
            tracing::info!(session.id = "9c", "claimed session 9c");
            tracing::debug!("not at info");
        })
    }

    fn lines_of(format: LogFormat, level: &str, act: impl FnOnce(&LogControl)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let made = subscriber(format, level, false, move || writer.clone());
        let (subscriber, control) = made.unwrap();
        tracing::subscriber::with_default(subscriber, || act(&control));
        String::from_utf8(sink.0.lock().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_on_top() {
        let text = lines(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "claimed session 9c");
        assert_eq!(line["session.id"], "9c");
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_level_holds_for_a_while_and_then_the_configured_one_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let text = lines_of(LogFormat::Json, "info", |control| {
            tracing::debug!("not yet");
            runtime.block_on(async {
                control.set("roost_telemetry=debug", Duration::from_secs(60)).unwrap();
                tracing::debug!("now");
                assert_eq!(control.level().seconds_left, Some(60));
                tokio::time::advance(Duration::from_secs(59)).await;
                control.expire();
                tracing::debug!("still");
                tokio::time::advance(Duration::from_secs(1)).await;
                control.expire();
                tracing::debug!("no longer");
                assert_eq!(control.level().level, "info");
                control.set("debug", Duration::from_secs(60)).unwrap();
                control.reset();
                tracing::debug!("nor now");
                assert!(control.set("loud", Duration::from_secs(60)).is_err());
                assert_eq!(control.level().seconds_left, None);
            });
        });
        let own = |line: &serde_json::Value| line["level"] == "DEBUG";
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let said: Vec<_> = lines.filter(own).map(|line| line["message"].clone()).collect();
        assert_eq!(said, ["now", "still"], "{text}");
        assert_eq!(text.matches("changed for a while").count(), 2, "{text}");
        assert_eq!(text.matches("as configured again").count(), 2, "{text}");
    }

    #[test]
    fn human_lines_are_plain_without_a_terminal() {
        let text = lines(LogFormat::Human, "info");
        assert!(
            text.contains("claimed session 9c") && text.contains("session.id=\"9c\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(lines(LogFormat::Human, "warn"), "");
        assert_eq!(lines(LogFormat::Human, "warn, roost_telemetry=debug").lines().count(), 2);
    }

    #[test]
    fn a_wrong_level_is_named_with_what_is_right() {
        for bad in ["infoo", "", "info,roost_edge", "roost_edge=loud", "info,,"] {
            let error =
                filter(bad).err().unwrap_or_else(|| panic!("{bad:?} was taken")).to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
            assert!(error.contains("off, error, warn, info, debug or trace"), "{error}");
        }
        for good in ["info", "INFO", "off", "info,roost_edge=debug", "warn,hyper=off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
    }
}
