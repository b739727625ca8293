//! What people and machines read: tables and colours on a terminal, JSON lines on request. What is
//! in them is in `views.rs`.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{Exit, Failure};

/// A colour or weight, on a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    Good,
    Bad,
    Dim,
    Bold,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    colours: bool,
}

/// Rows under a heading, each column as wide as it must be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

// === impl Output ===

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self { json, colours: !plain && io::stdout().is_terminal() }
    }

    /// The text in a style, on a terminal.
    pub(super) fn paint(self, style: Style, text: impl fmt::Display) -> String {
        if !self.colours {
            return text.to_string();
        }
        let code = match style {
            Style::Good => 32,
            Style::Bad => 31,
            Style::Dim => 2,
            Style::Bold => 1,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// One line.
    #[expect(clippy::unused_self, reason = "all output goes through an Output")]
    pub(super) fn line(self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// One JSON value on a line.
    pub(super) fn json_line(self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(value).map_err(io::Error::other)?)
    }

    /// The value as JSON, or as the text that `human` makes.
    pub(super) fn show(
        self,
        value: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.json { self.json_line(value) } else { self.line(human()) }
    }

    /// The values as JSON lines, or as a table.
    pub(super) fn list<T: Serialize>(
        self,
        heading: &[&str],
        values: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        if self.json {
            return values.iter().try_for_each(|value| self.json_line(value));
        }
        let mut table = Table::new(heading);
        for value in values {
            table.add(row(value));
        }
        self.table(&table)
    }

    fn table(self, table: &Table) -> io::Result<()> {
        for (index, line) in table.lines().into_iter().enumerate() {
            let heading = index == 0;
            self.line(if heading { self.paint(Style::Bold, line) } else { line })?;
        }
        Ok(())
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        let heading = heading.iter().map(|text| (*text).to_owned()).collect();
        Self { rows: vec![heading] }
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Tells on standard error what went wrong.
pub(super) fn complain(failure: &Failure) {
    if failure.exit() != Exit::Ok {
        // Nothing can be done about a standard error that nobody reads.
        writeln!(io::stderr(), "error: {failure}").ok();
    }
}

/// A duration as people read it: `0.84 ms`, `1.2 s`.
pub(super) fn elapsed(duration: std::time::Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.2} ms")
    } else if millis < 1000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1000.0)
    }
}
