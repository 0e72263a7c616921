//! People and templates as they cross the control socket.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroize;

use crate::gallery::GalleryError;
use crate::gallery::format::{MAX_DIMENSION, MAX_TEMPLATES_PER_PERSON};
use crate::types::{Embedding, ModelId, Person};

/// The most people and templates of one message: an import sends 256 people at once.
const MAX_MESSAGE_PEOPLE: usize = 16_384;
const MAX_MESSAGE_TEMPLATES: usize = 131_072;

/// A template on its way. No `Debug`, cleared when it goes.
#[derive(Serialize, Deserialize)]
pub struct Template(pub(super) Vec<f32>);

impl Drop for Template {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// People with templates on their way, so many as a message may hold: its length alone bounds neither, because a person and a template
/// of nothing are a few bytes in it and many times as much in memory.
#[derive(Serialize)]
#[serde(transparent)]
pub struct People(pub(super) Vec<(Person, Vec<Template>)>);

impl<'de> Deserialize<'de> for People {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = People;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {MAX_MESSAGE_PEOPLE} people")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<People, A::Error> {
                let (mut people, left) = (Vec::new(), Cell::new(MAX_MESSAGE_TEMPLATES));
                while let Some(one) = all.next_element_seed(One(&left))? {
                    if people.len() == MAX_MESSAGE_PEOPLE {
                        return Err(A::Error::custom("too many people"));
                    }
                    people.push(one);
                }
                Ok(People(people))
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

/// One person with templates, of which so many may still come.
#[derive(Clone, Copy)]
struct One<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = (Person, Vec<Template>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = (Person, Vec<Template>);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a person and templates")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut both: A) -> Result<Self::Value, A::Error> {
        let person = both.next_element()?.ok_or_else(|| A::Error::custom("no person"))?;
        let templates = both.next_element_seed(Templates(self.0))?.ok_or_else(|| A::Error::custom("no templates"))?;
        Ok((person, templates))
    }
}

/// The templates of one person.
struct Templates<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Templates<'_> {
    type Value = Vec<Template>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Templates<'_> {
    type Value = Vec<Template>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at most {MAX_TEMPLATES_PER_PERSON} templates")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
        let mut templates = Vec::new();
        while let Some(template) = all.next_element::<Template>()? {
            let left = self.0.get().checked_sub(1).filter(|_| templates.len() < MAX_TEMPLATES_PER_PERSON);
            self.0.set(left.ok_or_else(|| A::Error::custom("too many templates"))?);
            if template.0.len() > MAX_DIMENSION {
                return Err(A::Error::custom("a template is too long"));
            }
            templates.push(template);
        }
        Ok(templates)
    }
}

pub(super) type Enrolments = Vec<(Person, Vec<Embedding>)>;

/// Templates as the gallery takes them.
pub(super) fn embeddings(model: &ModelId, People(people): People) -> Result<Enrolments, GalleryError> {
    let convert = |(person, templates): (Person, Vec<Template>)| {
        let embedding = |mut template: Template| Embedding::normalised(model.clone(), std::mem::take(&mut template.0));
        let all: Option<Vec<Embedding>> = templates.into_iter().map(embedding).collect();
        match all {
            Some(all) => Ok((person, all)),
            None => Err(GalleryError::NoTemplates { person: person.id }),
        }
    };
    people.into_iter().map(convert).collect()
}
