//! People in the gallery, and what a search says about them.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{GroupId, PersonId, Score, Wall};

/// The most groups that one reads of a person; a gallery takes no more either.
const MAX_GROUPS: usize = 64;

/// What the gallery keeps about a person besides templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The key.
    pub id: PersonId,
    /// A name for people to read; leaves the device only when the config says so.
    pub name: Option<String>,
    /// The groups that policies name.
    #[serde(deserialize_with = "few_groups")]
    pub groups: Vec<GroupId>,
    /// When the person agreed to be enrolled, where that was recorded.
    pub consented_at: Option<Wall>,
    /// From when on the person is to be denied and purged.
    pub expires_at: Option<Wall>,
    /// When the person was enrolled.
    pub enrolled_at: Wall,
}

/// So that a short message of many empty names takes no memory that nobody meant it to.
fn few_groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GroupId>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<GroupId>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX_GROUPS} groups")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut groups = Vec::new();
            while let Some(group) = all.next_element()? {
                if groups.len() == MAX_GROUPS {
                    return Err(A::Error::custom("too many groups"));
                }
                groups.push(group);
            }
            Ok(groups)
        }
    }
    deserializer.deserialize_seq(Few)
}

/// One person that a probe resembles, with the score of that person's best template.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub person: PersonId,
    /// How much alike, by the person's best template.
    pub score: Score,
}

/// What the rules ask of an enrolled person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// The groups that policies name.
    pub groups: Vec<GroupId>,
    /// From when on the person is denied.
    pub expires_at: Option<Wall>,
}

impl From<&Person> for Profile {
    fn from(person: &Person) -> Self {
        Self { groups: person.groups.clone(), expires_at: person.expires_at }
    }
}
