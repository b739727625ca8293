//! Where log lines go and what they look like: to standard error, for people or as one JSON object
//! a line. What is logged is decided where it happens.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message` and the event's fields.
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
/// `level` is a level, or a list of `target=level`, comma-separated.
pub fn init_tracing(format: LogFormat, level: &str) -> Result<(), LogError> {
    let colours = std::io::stderr().is_terminal();
    let subscriber = subscriber(format, level, colours, std::io::stderr)?;
    tracing_subscriber::util::SubscriberInitExt::try_init(subscriber)
        .map_err(|_| LogError::AlreadySet)
}

/// The subscriber behind [`init_tracing`], writing to `writer`: for tests that read log lines.
pub fn subscriber<W>(
    format: LogFormat,
    level: &str,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(writer);
    Ok(match format {
        LogFormat::Human => Box::new(builder.with_ansi(colours).finish()),
        LogFormat::Json => Box::new(
            builder.with_ansi(false).json().flatten_event(true).with_span_list(false).finish(),
        ),
    })
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
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
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, level, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(session.id = "9c", "claimed session 9c");
            tracing::debug!("not at info");
        });
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
