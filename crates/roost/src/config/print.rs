//! The configuration as a TOML file that explains itself. Secrets are not in it.

use std::fmt::Write as _;

use super::Config;

/// One key, to be printed.
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) about: &'static str,
    pub(super) key: &'static str,
    pub(super) doc: &'static str,
    pub(super) kind: String,
    pub(super) value: Option<String>,
}

impl Config {
    /// As a commented TOML file, every key with its value in force.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for row in self.rows() {
            if row.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = row.section;
                line(&mut out, format_args!("{gap}# {}\n[{section}]", row.about.trim()));
            }
            line(&mut out, format_args!("# {}", row.doc.trim()));
            match row.value {
                Some(value) => line(&mut out, format_args!("{} = {value}", row.key)),
                None => line(&mut out, format_args!("# {} =", row.key)),
            }
        }
        out
    }

    /// As one JSON object of sections, for machines. Values are as in TOML: durations are texts.
    pub fn to_json(&self) -> serde_json::Value {
        let mut sections = serde_json::Map::new();
        for row in self.rows() {
            let section = sections.entry(row.section).or_insert_with(|| serde_json::json!({}));
            // TOML's basic strings, integers and booleans are JSON's.
            let value = row.value.and_then(|text| serde_json::from_str(&text).ok());
            section[row.key] = value.unwrap_or(serde_json::Value::Null);
        }
        serde_json::Value::Object(sections)
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}
