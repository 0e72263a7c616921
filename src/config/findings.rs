//! Reading TOML so that everything wrong in it is told at once, each with its line and column.
//!
//! Serde stops at the first error. So the text is parsed into a tree that knows every key's place, the tree is read, and on an error the
//! key at the error's place is taken out of the tree and the tree is read again. What is left in the end is judged for its ranges.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use crate::system::logging;

/// After this many, a file is more likely no config at all; it also bounds the work on a hostile one.
const MAX_FINDINGS: usize = 100;

/// One thing that is wrong, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The dotted key, empty when it is about the text as a whole.
    pub key: String,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for Finding {
    /// `line:column: key: message`, safe to print: what came from the file is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", logging::escape(&self.key))?;
        }
        f.write_str(&logging::escape(&self.message))
    }
}

/// A judgement on a value that was read: dotted key and message. `cameras.0.id` names a key of the first camera.
pub(super) type Judged = Vec<(String, String)>;

/// Reads `text`; `judge` tells what is out of range, `relate` what does not fit together (asked only when everything was read as it
/// stands, because a part that had to be left out would be missed by every other).
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    judge: impl FnOnce(&T) -> Judged,
    relate: impl FnOnce(&T) -> Judged,
) -> Result<T, Vec<Finding>> {
    let (mut tree, errors) = DeTable::parse_recoverable(text);
    let place = |at: usize| position(text, at);
    if !errors.is_empty() {
        return Err(sorted(errors.iter().map(|error| finding(place, error.span(), "", sentence(error.message()))).collect()));
    }
    // What is taken out moves its neighbours up: places are told as they are in the file.
    let whole = tree.clone();
    let told = |span: &Range<usize>| find_span(whole.get_ref(), span);
    let mut findings = Vec::new();
    let mut taken: Vec<Taken> = Vec::new();
    let value = loop {
        let error = match T::deserialize(Deserializer::from(tree.clone())) {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        let path = error.span().and_then(|span| find_span(tree.get_ref(), &span));
        let key = error.span().and_then(|span| told(&span)).as_deref().map(dotted).unwrap_or_default();
        if !is_echo(&taken, path.as_deref(), error.message()) {
            findings.push(finding(place, error.span(), &key, sentence(error.message())));
        }
        match path {
            Some(path) if findings.len() < MAX_FINDINGS => {
                take_out(tree.get_mut(), &path);
                taken.push(Taken { path });
            }
            _ => break None,
        }
    };
    let Some(value) = value else { return Err(sorted(findings)) };
    let related = if findings.is_empty() { relate(&value) } else { Judged::new() };
    for (key, message) in judge(&value).into_iter().chain(related) {
        let span = find_key(tree.get_ref(), &key);
        // Only where the file has the very key, and not just the section it would stand in.
        let in_file = span.as_ref().and_then(told).filter(|path| path.len() == key.split('.').count());
        let key = in_file.as_deref().map_or(key, dotted);
        findings.push(finding(place, span, &key, message));
    }
    if findings.is_empty() { Ok(value) } else { Err(sorted(findings)) }
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings.dedup();
    findings
}

fn finding(place: impl Fn(usize) -> (usize, usize), span: Option<Range<usize>>, key: &str, message: String) -> Finding {
    let (line, column) = place(span.map_or(0, |span| span.start));
    Finding { line, column, key: key.to_owned(), message }
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    (line, 1 + String::from_utf8_lossy(&before[line_start..]).chars().count())
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

struct Taken {
    path: Vec<Step>,
}

/// Whether "missing field" is only about a key that was there, was wrong, was told, and was taken out.
fn is_echo(taken: &[Taken], table: Option<&[Step]>, message: &str) -> bool {
    let (Some(table), Some(name)) = (table, message.strip_prefix("missing field ")) else { return false };
    let missing = Step::Key(name.trim_matches('`').to_owned());
    taken.iter().any(|t| t.path.split_last().is_some_and(|(last, parent)| *last == missing && parent == table))
}

fn dotted(path: &[Step]) -> String {
    let steps: Vec<String> = path
        .iter()
        .map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(index) => index.to_string(),
        })
        .collect();
    steps.join(".")
}

/// The deepest entry whose key or value lies at exactly `span`. Deepest, because the place of `[[cameras]]` is both the array's and
/// its first table's.
fn find_span(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    fn in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
        let inside = match value.get_ref() {
            DeValue::Table(table) => find_span(table, span),
            DeValue::Array(array) => array.iter().enumerate().find_map(|(index, item)| {
                let mut path = vec![Step::Index(index)];
                path.extend(in_value(item, span)?);
                Some(path)
            }),
            _ => None,
        };
        inside.or_else(|| (value.span() == *span).then(Vec::new))
    }
    table.iter().find_map(|(key, value)| {
        let inside = in_value(value, span).or_else(|| (key.span() == *span).then(Vec::new))?;
        let mut path = vec![Step::Key(key.get_ref().to_string())];
        path.extend(inside);
        Some(path)
    })
}

fn take_out(table: &mut DeTable<'_>, path: &[Step]) {
    fn from_value(value: &mut DeValue<'_>, path: &[Step]) {
        match (value, path) {
            (DeValue::Table(table), path) => take_out(table, path),
            (DeValue::Array(array), [Step::Index(index)]) if *index < array.len() => {
                let mut kept = DeArray::new();
                array.iter().enumerate().filter(|(at, _)| at != index).for_each(|(_, item)| kept.push(item.clone()));
                *array = kept;
            }
            (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
                if let Some(item) = array.get_mut(*index) {
                    from_value(item.get_mut(), rest);
                }
            }
            _ => {}
        }
    }
    let Some((Step::Key(name), rest)) = path.split_first() else { return };
    if rest.is_empty() {
        let _ = table.remove(name.as_str());
    } else if let Some((_, value)) = table.iter_mut().find(|(key, _)| key.get_ref().as_ref() == name) {
        from_value(value.get_mut(), rest);
    }
}

/// The place of the value that the dotted key names, or of the nearest part of it that stands in the file.
fn find_key(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    fn in_value(value: &Spanned<DeValue<'_>>, rest: &str) -> Option<Range<usize>> {
        match value.get_ref() {
            _ if rest.is_empty() => Some(value.span()),
            DeValue::Table(table) => find_key(table, rest),
            DeValue::Array(array) => {
                let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
                let item = array.get(index.parse::<usize>().ok()?)?;
                in_value(item, rest).or_else(|| Some(item.span()))
            }
            _ => None,
        }
    }
    // A key may hold dots itself, so the longest that fits is the one that is meant.
    let fits = |name: &str| key.strip_prefix(name).and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix('.') });
    let entries = table.iter().filter_map(|(name, value)| Some((name, value, fits(name.get_ref())?)));
    let (name, value, rest) = entries.max_by_key(|(name, ..)| name.get_ref().len())?;
    in_value(value, rest).or_else(|| Some(name.span()))
}

/// Serde's words for people.
fn sentence(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (Some(rest), [given, known @ ..]) = (message.strip_prefix("unknown field "), quoted.as_slice()) {
        let _ = rest;
        return unknown("key", given, known);
    }
    if let (true, [given, known @ ..]) = (message.starts_with("unknown variant "), quoted.as_slice()) {
        return unknown("value", given, known);
    }
    if let (Some(_), [name]) = (message.strip_prefix("missing field "), quoted.as_slice()) {
        return format!("key `{name}` is missing here and has no default: add it");
    }
    match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a section of its own"),
        None => message.to_owned(),
    }
}

fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (distance(given, name), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + given.chars().count() / 4 => {
            format!("unknown {what} `{given}`: did you mean `{name}`?")
        }
        Some(_) => format!("unknown {what} `{given}`: known here are `{}`", known.join("`, `")),
        None => format!("unknown {what} `{given}`: take it out"),
    }
}

/// Levenshtein's distance; long texts are not worth comparing.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Default)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
    struct House {
        size_m2: u32,
        rooms: Vec<Room>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only read by serde")]
    struct Room {
        id: String,
        colour: Colour,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Colour {
        Red,
        Blue,
    }

    fn findings(text: &str) -> Vec<String> {
        let judge = |house: &House| {
            let big = (house.size_m2 > 500).then(|| ("size-m2".to_owned(), "too big: use up to 500".to_owned()));
            let reds = house.rooms.iter().enumerate().filter(|(_, room)| matches!(room.colour, Colour::Red));
            big.into_iter().chain(reds.map(|(n, _)| (format!("rooms.{n}.colour"), "not red".to_owned()))).collect()
        };
        let relate = |house: &House| if house.rooms.is_empty() { vec![(String::new(), "no room".to_owned())] } else { vec![] };
        read(text, judge, relate).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_finding_comes_at_once_and_in_order() {
        let text = "size-m2 = 900\nsize = 3\n[[rooms]]\nid = 5\ncolour = \"red\"\n[[rooms]]\ncolour = \"bleu\"\nid = \"b\"\n[[rooms]]\nid = \"c\"\ncolour = \"red\"\n";
        assert_eq!(
            findings(text),
            [
                "1:11: size-m2: too big: use up to 500",
                "2:1: size: unknown key `size`: known here are `size-m2`, `rooms`",
                "4:6: rooms.0.id: invalid type: integer `5`, expected a string",
                "7:10: rooms.1.colour: unknown value `bleu`: did you mean `blue`?",
                "11:10: rooms.2.colour: not red",
            ]
        );
    }

    #[test]
    fn every_syntax_error_is_told_and_nothing_is_guessed_behind_it() {
        assert_eq!(findings("size-m2 = \nrooms = [\n").len(), 2);
    }

    #[test]
    fn a_missing_key_is_told_where_its_section_begins() {
        assert_eq!(
            findings("\n[[rooms]]\ncolour = \"blue\"\n"),
            ["2:1: rooms.0: key `id` is missing here and has no default: add it"]
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told_only_when_all_was_read() {
        assert_eq!(findings("size-m2 = 1"), ["1:1: no room"]);
        assert_eq!(findings("rooms = 1").len(), 1);
    }

    #[test]
    fn columns_count_characters_and_hostile_keys_are_escaped() {
        assert_eq!(findings("rooms = [{ id = \"ää\", colour = \"red\" }]"), ["1:32: rooms.0.colour: not red"]);
        assert_eq!(findings("\"a\\u001b[2J\" = 1\nrooms = [{id = \"a\", colour = \"blue\"}]")[0].matches('\u{1b}').count(), 0);
    }

    #[test]
    fn a_hostile_file_costs_a_bounded_amount_of_work() {
        let text: String = (0..5000).map(|n| format!("k{n} = 1\n")).collect();
        assert_eq!(findings(&text).len(), MAX_FINDINGS);
    }
}
