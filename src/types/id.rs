//! Identifiers. Each is a newtype, so that a door is never handed where a camera is meant, and each is safe to stand in a topic
//! name, a file name and a log line.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// The longest identifier, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no {kind}: use 1 to {MAX_ID_BYTES} of the letters a-z A-Z, digits, `_`, `-` and `.`, not starting with `.` or `-`"
)]
pub struct InvalidId {
    /// What was asked for, as the user knows it ("camera id").
    pub kind: &'static str,
    /// The text that was refused, shortened and made printable.
    pub text: String,
}

/// Letters, digits, `_`, `-` and `.` only: no MQTT wildcard, no path separator, no white space, nothing that a shell or a log
/// parser would take apart.
fn is_valid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_ID_BYTES
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text if it keeps the rule of [`InvalidId`].
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                if is_valid(&text) {
                    return Ok(Self(text));
                }
                let shown = text.chars().take(MAX_ID_BYTES).flat_map(char::escape_default).collect();
                Err(InvalidId { kind: $kind, text: shown })
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One camera, as the config names it.
    CameraId,
    "camera id"
);
id!(
    /// One door: the audience of a grant.
    DoorId,
    "door id"
);
id!(
    /// This device: the base of its MQTT topics and the issuer of its grants.
    DeviceId,
    "device id"
);
id!(
    /// One enrolled person. An opaque key: a person's name is kept beside it, never in it.
    PersonId,
    "person id"
);
id!(
    /// A group of people that a policy names.
    GroupId,
    "group id"
);
id!(
    /// One set of rules: what a decision names beside their version.
    PolicyId,
    "policy id"
);
id!(
    /// A weekly schedule of a policy.
    ScheduleId,
    "schedule id"
);
id!(
    /// An area that people enter by some doors and leave by others.
    AreaId,
    "area id"
);
id!(
    /// One network with one preprocessing, as the manifest names it. Embeddings of different models are never compared.
    ModelId,
    "model id"
);

/// One person's stay in one camera's view, numbered from 1 by the tracker since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrackId(pub u64);

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_would_break_a_topic_or_a_path_are_refused() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for text in ["", "a/b", "+", "#", "..", ".hidden", "-flag", "a b", "é", "a\n", long.as_str()] {
            assert!(PersonId::new(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_refused_text_is_printable_in_its_error() {
        let error = CameraId::new("a\nb").unwrap_err();
        assert!(error.to_string().contains(r"a\nb"), "{error}");
    }

    #[test]
    fn ordinary_names_are_taken() {
        for text in ["front", "George_W_Bush", "door-1", "v1.2", "0"] {
            assert_eq!(DoorId::new(text).unwrap().as_str(), text);
        }
    }
}
