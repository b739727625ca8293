//! Where values come from: the file, then `ROOST_SECTION__KEY` variables, then flags. Each value
//! keeps its source, so that what is wrong can be named with it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::KEYS;
use super::nearest::nearest;
use super::setting::Setting;

/// Where to look for values. Nothing is read from the process behind the caller's back.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment: names and values.
    pub env: Vec<(String, String)>,
    /// Flags: the key that each stands for, its name (`--edge-addr`) and its value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// One thing that is wrong, with its key and where that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

/// All that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File(PathBuf, usize),
    Env(String),
    Flag(&'static str),
}

#[derive(Debug)]
struct Entry {
    text: String,
    origin: Origin,
}

/// The values of all layers, the later having replaced the earlier.
#[derive(Debug, Default)]
pub(super) struct Layers {
    entries: BTreeMap<&'static str, Entry>,
    problems: Vec<Problem>,
    /// Keys that have been said something wrong about: checks of what fits together pass over them.
    wrong: HashSet<&'static str>,
}

// === impl Sources ===

impl Sources {
    /// This file and the process's environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { file, env: std::env::vars_os().filter_map(utf8).collect(), flags: vec![] }
    }
}

// === impl Problems ===

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = self.0.len() > 1;
        f.write_str(if many {
            "the configuration is not right:"
        } else {
            "the configuration is not right: "
        })?;
        for Problem(text) in &self.0 {
            if many {
                write!(f, "\n  - {text}")?;
            } else {
                f.write_str(text)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Env(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

// === impl Layers ===

impl Layers {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut layers = Self::default();
        if let Some(path) = &sources.file {
            layers.add_file(path);
        }
        let mut env: Vec<_> = sources.env.iter().collect();
        env.sort();
        for (name, value) in env {
            layers.add_variable(name, value);
        }
        for (key, name, value) in &sources.flags {
            layers.add(key, value.clone(), Origin::Flag(name));
        }
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = format!("cannot read the file {}: {error}", path.display());
                return self.problem(problem);
            }
        };
        let line = |at: usize| 1 + text.get(..at).map_or(0, |before| before.matches('\n').count());
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let what = error.message();
            self.problem(format!("{}, line {}: {what}", path.display(), line(at)));
        }
        for (section, values) in table.get_ref() {
            let name: &str = section.get_ref();
            let origin = |at: usize| Origin::File(path.to_owned(), line(at));
            let Some(values) = values.get_ref().as_table() else {
                self.unknown(name, &origin(section.span().start));
                continue;
            };
            for (key, value) in values {
                let key_name = format!("{name}.{}", key.get_ref());
                self.add_value(&key_name, value, origin(key.span().start));
            }
        }
    }

    fn add_value(&mut self, key: &str, value: &Spanned<DeValue<'_>>, origin: Origin) {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => {
                let found = other.type_str();
                let problem = format!(
                    "{key} ({origin}): expected a text, a number or true or false, found {found}"
                );
                return self.problem(problem);
            }
        };
        self.add(key, text, origin);
    }

    fn add_variable(&mut self, name: &str, value: &str) {
        let Some(rest) = name.strip_prefix("ROOST_") else {
            return;
        };
        let origin = Origin::Env(name.to_owned());
        if rest.contains("__") {
            let key = rest.replacen("__", ".", 1).to_lowercase();
            return self.add(&key, value.to_owned(), origin);
        }
        // Kubernetes sets ROOST_PORT and the like for a service of this name: only what reads like
        // one of our keys can be a mistake.
        let one_underscore = |key: &&&str| key.replace('.', "_") == rest.to_lowercase();
        if let Some(key) = KEYS.iter().find(one_underscore) {
            let right = format!("ROOST_{}", key.replace('.', "__").to_uppercase());
            self.problem(format!("variable {name} does nothing; did you mean {right}?"));
        }
    }

    fn add(&mut self, key: &str, text: String, origin: Origin) {
        match KEYS.iter().find(|known| **known == key) {
            Some(known) => {
                self.entries.insert(known, Entry { text, origin });
            }
            None => self.unknown(key, &origin),
        }
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let hint = match nearest(key, KEYS) {
            Some(near) => format!("did you mean {near}?"),
            None => "`roost config print` shows every key".to_owned(),
        };
        self.problem(format!("{key} ({origin}): there is no such key; {hint}"));
    }

    /// The value of a key, if it was said and is right.
    pub(super) fn take<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let entry = self.entries.get(key)?;
        match T::read(&entry.text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.wrong_value(key, &expected);
                None
            }
        }
    }

    /// Notes what is wrong with the value of a key.
    pub(super) fn wrong_value(&mut self, key: &'static str, expected: &str) {
        if !self.wrong.insert(key) {
            return;
        }
        let problem = match self.entries.get(key) {
            // A URL may hold a password.
            Some(entry) if key == "redis.url" => format!("{key} ({}): {expected}", entry.origin),
            Some(entry) => {
                let Entry { text, origin } = entry;
                format!("{key} = {text:?} ({origin}): {expected}")
            }
            None => format!("{key}: {expected}"),
        };
        self.problem(problem);
    }

    /// Whether nothing wrong has been said about a key.
    pub(super) fn is_right(&self, key: &'static str) -> bool {
        !self.wrong.contains(key)
    }

    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(Problem(text));
    }

    pub(super) fn finish(self) -> Option<Problems> {
        (!self.problems.is_empty()).then_some(Problems(self.problems))
    }
}
