//! One JSON object taken apart into its known fields, and reading a field as what it must be.
//!
//! The words of errors are in `value.rs`. Which message has which
//! fields is in `read_device.rs` and `read_hub.rs`.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use roost_types::{CommandId, ErrorCode, HubError, Position, Qos, Topic, TopicFilter, UnixMillis};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::payload::depth_over;
use super::value::{invalid, required, shown, string};

macro_rules! fields {
    ($($name:ident $text:literal,)*) => {
        /// Every field that some message of the protocol has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($name,)* }

        impl Field {
            const COUNT: usize = [$($text),*].len();

            fn of(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }

            /// As it is written.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

fields! {
    Type "type", Id "id", KeepaliveMs "keepalive_ms", Token "token",
    Subscriptions "subscriptions", Features "features", Topic "topic", Qos "qos",
    Position "position", Payload "payload", Text "text", Base64 "base64",
    ContentType "content_type", Headers "headers", CommandId "command_id", Percent "percent",
    Note "note", Status "status", Error "error", DeviceId "device_id", SessionId "session_id",
    TimeMs "time_ms", Limits "limits", PayloadBytes "payload_bytes", FrameBytes "frame_bytes",
    From "from", To "to", Name "name", ExpiresMs "expires_ms", ExpiresInMs "expires_in_ms",
    Attempt "attempt", Code "code", Message "message", Where "field", Retryable "retryable",
    Reason "reason", RetryAfterMs "retry_after_ms", Traceparent "traceparent",
}

/// The known fields of one object; unknown ones are passed over.
pub(super) struct Fields<'a> {
    values: [Option<&'a RawValue>; Field::COUNT],
    /// What is wrong with the object as a whole, found while taking it apart.
    broken: Option<HubError>,
}

/// Takes an object apart; carries the depth that a field's value may have.
pub(super) struct FieldsSeed {
    depth: usize,
}

// === impl FieldsSeed ===

impl FieldsSeed {
    pub(super) fn new(depth: usize) -> Self {
        Self { depth }
    }
}

impl<'de> DeserializeSeed<'de> for FieldsSeed {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields<'de>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { values: [None; Field::COUNT], broken: None };
        while let Some(key) = map.next_key::<Key>()? {
            let value = map.next_value::<&RawValue>()?;
            if let Some(depth) = depth_over(value.get(), self.depth) {
                fields.break_with(&key, &too_deep(depth, self.depth));
            }
            let Key::Known(field) = key else { continue };
            if fields.values[field as usize].is_some() {
                fields.break_with(&key, "it is given twice; give it once");
            } else {
                fields.values[field as usize] = Some(value);
            }
        }
        Ok(fields)
    }
}

fn too_deep(depth: usize, most: usize) -> String {
    format!("its value is nested {depth} levels deep; at most {most} are taken")
}

/// A field's name: known, or kept only to be named in an error.
enum Key {
    Known(Field),
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Field::of(name)
                    .map_or_else(|| Key::Unknown(name.chars().take(32).collect()), Key::Known))
            }
        }
        from.deserialize_str(KeyVisitor)
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Takes the object in `text`, a value that is already known to be JSON, apart.
    pub(super) fn of(text: &'a str, depth: usize) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        FieldsSeed::new(depth).deserialize(&mut json).ok()
    }

    fn break_with(&mut self, key: &Key, what: &str) {
        let name = match key {
            Key::Known(field) => Cow::Borrowed(field.name()),
            Key::Unknown(name) => Cow::Owned(name.escape_debug().to_string()),
        };
        let message = format!("{name} cannot be taken: {what}");
        self.broken.get_or_insert(HubError::new(ErrorCode::FieldInvalid, message).at(name));
    }

    /// What was wrong with the object as a whole.
    pub(super) fn check(&self) -> Result<(), HubError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The field's JSON text; `None` where it is absent.
    pub(super) fn json(&self, field: Field) -> Option<&'a str> {
        self.values[field as usize].map(RawValue::get)
    }

    /// The same, where `null` counts as absent: everywhere but in a payload.
    pub(super) fn raw(&self, field: Field) -> Option<&'a str> {
        self.json(field).filter(|raw| *raw != "null")
    }

    /// A string.
    pub(super) fn string(&self, field: Field) -> Result<Option<Cow<'a, str>>, HubError> {
        self.raw(field).map(|raw| string(field, raw)).transpose()
    }

    /// A string of at most `most` bytes.
    pub(super) fn short(
        &self,
        field: Field,
        most: usize,
    ) -> Result<Option<Cow<'a, str>>, HubError> {
        let text = self.string(field)?;
        match &text {
            Some(text) if text.len() > most => {
                let is = format_args!("{} bytes long", text.len());
                Err(invalid(field, is, format_args!("at most {most}")))
            }
            _ => Ok(text),
        }
    }

    /// An integer within a range.
    pub(super) fn integer(
        &self,
        field: Field,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, HubError> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        match raw.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let want = format!("an integer from {} to {}", range.start(), range.end());
                Err(invalid(field, shown(raw), want))
            }
        }
    }

    /// An unsigned integer of 32 bits.
    pub(super) fn u32(&self, field: Field) -> Result<Option<u32>, HubError> {
        let number = self.integer(field, 0..=u64::from(u32::MAX))?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    /// A time.
    pub(super) fn time(&self, field: Field) -> Result<UnixMillis, HubError> {
        let number = self.integer(field, 0..=u64::MAX)?;
        required(field, number).map(UnixMillis)
    }

    /// A boolean.
    pub(super) fn boolean(&self, field: Field) -> Result<Option<bool>, HubError> {
        match self.raw(field) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(raw) => Err(invalid(field, shown(raw), "true or false")),
        }
    }

    /// An array's elements, as JSON text; empty where it is absent.
    pub(super) fn array(&self, field: Field) -> Result<Vec<&'a str>, HubError> {
        let Some(raw) = self.raw(field) else {
            return Ok(Vec::new());
        };
        let elements: Vec<&RawValue> =
            serde_json::from_str(raw).map_err(|_| invalid(field, shown(raw), "an array"))?;
        Ok(elements.into_iter().map(RawValue::get).collect())
    }

    /// `topic` as a topic without wildcards.
    pub(super) fn topic(&self) -> Result<Topic, HubError> {
        let text = required(Field::Topic, self.string(Field::Topic)?)?;
        Topic::new(&text).map_err(|error| HubError::from(error).at("topic"))
    }

    /// `topic` as a filter.
    pub(super) fn filter(&self) -> Result<TopicFilter, HubError> {
        let text = required(Field::Topic, self.string(Field::Topic)?)?;
        TopicFilter::new(&text).map_err(|error| HubError::from(error).at("topic"))
    }

    /// `command_id`, where it is there.
    pub(super) fn optional_command_id(&self) -> Result<Option<CommandId>, HubError> {
        let text = self.string(Field::CommandId)?;
        text.map(|text| {
            CommandId::new(text).map_err(|error| HubError::from(error).at("command_id"))
        })
        .transpose()
    }

    /// `command_id`.
    pub(super) fn command_id(&self) -> Result<CommandId, HubError> {
        required(Field::CommandId, self.optional_command_id()?)
    }

    /// `qos`: 0, also where it is absent, or 1.
    pub(super) fn qos(&self) -> Result<Qos, HubError> {
        match self.raw(Field::Qos) {
            None | Some("0") => Ok(Qos::BestEffort),
            Some("1") => Ok(Qos::AtLeastOnce),
            Some(raw) => Err(invalid(Field::Qos, shown(raw), "0 or 1")),
        }
    }

    /// A position.
    pub(super) fn position(&self, field: Field) -> Result<Option<Position>, HubError> {
        let Some(text) = self.string(field)? else {
            return Ok(None);
        };
        let want = "a position as the hub gave it, 1 to 64 printable ASCII characters";
        match Position::parse(&text) {
            Some(position) => Ok(Some(position)),
            None => Err(invalid(field, "none of the hub's", want)),
        }
    }
}
