//! Topics and topic filters: what may stand in one. Matching many filters at once is in `trie.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most bytes a topic or a filter may have.
pub const MAX_TOPIC_BYTES: usize = 512;
/// The most levels a topic or a filter may have.
pub const MAX_TOPIC_LEVELS: usize = 16;

/// Which rule a topic or filter broke. Levels are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// There is nothing in it.
    #[error("the topic is empty; it needs at least one level, as in \"fleet/42/temp\"")]
    Empty,
    /// It has more than [`MAX_TOPIC_BYTES`] bytes.
    #[error("the topic has {0} bytes; at most 512 are allowed")]
    TooLong(usize),
    /// It has more than [`MAX_TOPIC_LEVELS`] levels.
    #[error("the topic has {0} levels; at most 16 are allowed")]
    TooManyLevels(usize),
    /// A level has no characters.
    #[error("level {level} is empty in {topic:?}")]
    EmptyLevel {
        /// Which one.
        level: usize,
        /// The whole topic.
        topic: String,
    },
    /// NUL or another control character.
    #[error("level {level} has the control character {found:?}; topics have none")]
    Control {
        /// Which level.
        level: usize,
        /// The character.
        found: char,
    },
    /// A wildcard where a plain topic is needed.
    #[error("level {level} has the wildcard {found:?}; wildcards stand only in filters")]
    Wildcard {
        /// Which level.
        level: usize,
        /// `+` or `#`.
        found: char,
    },
    /// A wildcard that shares its level with other characters.
    #[error(
        "level {level} mixes {found:?} with other characters; a wildcard stands alone in its level"
    )]
    MixedWildcard {
        /// Which level.
        level: usize,
        /// `+` or `#`.
        found: char,
    },
    /// `#` before the last level.
    #[error("\"#\" stands in level {level} of {levels}; it may only be the last level")]
    HashNotLast {
        /// Where it stands.
        level: usize,
        /// How many levels there are.
        levels: usize,
    },
}

fn check_levels(text: &str) -> Result<usize, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong(text.len()));
    }
    let levels = text.split('/').count();
    if levels > MAX_TOPIC_LEVELS {
        return Err(TopicError::TooManyLevels(levels));
    }
    for (index, level_text) in text.split('/').enumerate() {
        let level = index + 1;
        if level_text.is_empty() {
            let topic = text.escape_debug().to_string();
            return Err(TopicError::EmptyLevel { level, topic });
        }
        if let Some(found) = level_text.chars().find(|c| c.is_control()) {
            return Err(TopicError::Control { level, found });
        }
    }
    Ok(levels)
}

fn wildcard_in(level: &str) -> Option<char> {
    level.chars().find(|c| matches!(c, '+' | '#'))
}

/// Where messages are published: `/`-separated levels without wildcards. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the rules and takes the text over.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check_levels(text)?;
        for (index, level) in text.split('/').enumerate() {
            if let Some(found) = wildcard_in(level) {
                let level = index + 1;
                return Err(TopicError::Wildcard { level, found });
            }
        }
        Ok(Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the hub's own topics, which start with `$`.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Which topics somebody wants: levels, where `+` stands for one level and a final `#` for the rest.
///
/// As in MQTT, `a/#` matches `a` too, and a wildcard in the first level does not match topics that
/// start with `$`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Checks the rules and takes the text over.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        let levels = check_levels(text)?;
        for (index, level_text) in text.split('/').enumerate() {
            let level = index + 1;
            match wildcard_in(level_text) {
                Some(found) if level_text.len() > 1 => {
                    return Err(TopicError::MixedWildcard { level, found });
                }
                Some('#') if level != levels => {
                    return Err(TopicError::HashNotLast { level, levels });
                }
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has a wildcard; without one it is also a topic.
    pub fn is_wildcard(&self) -> bool {
        wildcard_in(&self.0).is_some()
    }

    /// The one topic it matches, where it has no wildcard.
    pub fn as_topic(&self) -> Option<Topic> {
        (!self.is_wildcard()).then(|| Topic(self.0.clone()))
    }

    /// Whether it opens the hub's own topics, which start with `$`.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether a topic is among those wanted. [`crate::FilterTrie`] asks many filters at once.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut wanted = self.0.split('/');
        let mut levels = topic.as_str().split('/');
        if topic.is_reserved() && !self.is_reserved() {
            return false;
        }
        loop {
            match (wanted.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(want), Some(level)) if want == level => {}
                _ => return false,
            }
        }
    }
}

impl std::borrow::Borrow<str> for TopicFilter {
    /// Lets a map by filter be asked for a topic; both hash and compare as their text.
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<Topic> for TopicFilter {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl FromStr for $name {
            type Err = TopicError;
            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
as_text!(Topic);
as_text!(TopicFilter);

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::new(text).unwrap()
    }

    #[test]
    fn a_topic_names_the_rule_it_broke() {
        assert_eq!(Topic::new(""), Err(TopicError::Empty));
        let error = Topic::new("fleet//temp").unwrap_err();
        assert_eq!(error.to_string(), "level 2 is empty in \"fleet//temp\"");
        assert!(matches!(Topic::new("/a"), Err(TopicError::EmptyLevel { level: 1, .. })));
        assert!(matches!(Topic::new("a/\0"), Err(TopicError::Control { level: 2, .. })));
        assert!(matches!(Topic::new("a/+"), Err(TopicError::Wildcard { level: 2, found: '+' })));
        assert_eq!(Topic::new(&"x".repeat(513)), Err(TopicError::TooLong(513)));
        assert_eq!(Topic::new(&vec!["x"; 17].join("/")), Err(TopicError::TooManyLevels(17)));
        assert!(Topic::new(&vec!["x"; 16].join("/")).is_ok());
        assert!(Topic::new("größe/温度").is_ok());
    }

    #[test]
    fn a_filter_names_the_rule_it_broke() {
        assert!(matches!(
            TopicFilter::new("a/#/b"),
            Err(TopicError::HashNotLast { level: 2, levels: 3 })
        ));
        assert!(matches!(
            TopicFilter::new("a/b+"),
            Err(TopicError::MixedWildcard { level: 2, .. })
        ));
        assert!(TopicFilter::new("+/a/#").unwrap().is_wildcard());
        assert_eq!(TopicFilter::new("a/b").unwrap().as_topic(), Some(topic("a/b")));
    }

    #[test]
    fn filters_match_as_in_mqtt() {
        for (filter, matching, other) in [
            ("a/b", "a/b", "a/c"),
            ("a/+", "a/b", "a/b/c"),
            ("a/#", "a", "b"),
            ("a/#", "a/b/c", "ab"),
            ("#", "a/b", "$sys/a"),
            ("+/a", "b/a", "$sys/a"),
            ("$sys/#", "$sys/a", "sys/a"),
            ("a/+/c", "a/b/c", "a/b"),
        ] {
            let filter = TopicFilter::new(filter).unwrap();
            assert!(filter.matches(&topic(matching)), "{filter} matches {matching}");
            assert!(!filter.matches(&topic(other)), "{filter} does not match {other}");
        }
    }
}
