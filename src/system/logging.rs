//! The log: the journal with its fields when systemd reads our stderr, otherwise one readable line an event on stderr:
//!
//! `2026-01-31T12:00:00.123Z WARN  capture: camera is away camera=front retry_ms=500`
//!
//! Text from outside (a camera's error, a topic, a name) is escaped, so that it can neither start a line nor steer a terminal.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::{Deserialize, Serialize};
use systemd_journal_logger::JournalLog;
use thiserror::Error;

use super::{clock, messages};
use crate::types::Wall;

/// Our crate's own target, which is not worth a reader's time and is taken off.
const OWN_TARGET: &str = "faceid_plus";

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; after it, with commas, other levels for parts: `info,capture=debug,rumqttc=info`.
    /// The libraries' own messages are kept from `warn` up unless they are named. RUST_LOG in the environment goes before this.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

impl Settings {
    /// What is out of range: the dotted key, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        Filter::parse(&self.level).err().map(|error| ("level".to_owned(), error.to_string())).into_iter().collect()
    }
}

/// Why the log could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// A level that is none.
    #[error("`{0}` is no log level: use off, error, warn, info, debug or trace, and PART=LEVEL after it, with commas")]
    BadLevel(String),
    /// Another logger was there first.
    #[error("a logger is already installed in this process")]
    AlreadyInstalled,
}

/// Which messages pass: a level for us, a level for each part that is named, and `warn` at most for the libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    own: LevelFilter,
    /// Longest name first, so that the first hit is the most particular.
    parts: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// Reads `info,capture=debug`. Parts of this crate may be named without `faceid_plus::`.
    pub fn parse(text: &str) -> Result<Self, LoggingError> {
        let bad = |word: &str| LoggingError::BadLevel(escape(word));
        let mut filter = Self { own: LevelFilter::Info, parts: Vec::new() };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some((part, level)) => filter.parts.push((part.trim().to_owned(), level.trim().parse().map_err(|_| bad(word))?)),
                None => filter.own = word.parse().map_err(|_| bad(word))?,
            }
        }
        filter.parts.sort_by_key(|(part, _)| std::cmp::Reverse(part.len()));
        Ok(filter)
    }

    fn level_of(&self, target: &str) -> LevelFilter {
        let own_part = target.strip_prefix(OWN_TARGET).map(|rest| rest.trim_start_matches("::"));
        let is_in =
            |target: &str, part: &str| target.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let named = self.parts.iter().find(|(part, _)| is_in(target, part) || own_part.is_some_and(|own| is_in(own, part)));
        match (named, own_part) {
            (Some((_, level)), _) => *level,
            (None, Some(_)) => self.own,
            (None, None) => self.own.min(LevelFilter::Warn),
        }
    }

    fn highest(&self) -> LevelFilter {
        self.parts.iter().map(|(_, level)| *level).fold(self.own, Ord::max)
    }
}

enum Sink {
    Journal(JournalLog),
    Stderr,
}

struct Logger {
    filter: ArcSwap<Filter>,
    sink: Sink,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Installs the log for the whole process. `RUST_LOG` goes before `settings`.
pub fn init(settings: &Settings) -> Result<(), LoggingError> {
    let filter = filter(settings)?;
    let (sink, complaint) = sink();
    let highest = filter.highest();
    LOGGER.set(Logger { filter: ArcSwap::from_pointee(filter), sink }).map_err(|_| LoggingError::AlreadyInstalled)?;
    let logger = LOGGER.get().ok_or(LoggingError::AlreadyInstalled)?;
    log::set_logger(logger).map_err(|_| LoggingError::AlreadyInstalled)?;
    log::set_max_level(highest);
    if let Some(error) = complaint {
        log::warn!(error:% = error; "the journal cannot be reached, logging to stderr");
    }
    Ok(())
}

/// Takes other levels into use while running; without [`init`] it only checks them.
pub fn reload(settings: &Settings) -> Result<(), LoggingError> {
    let filter = filter(settings)?;
    if let Some(logger) = LOGGER.get() {
        log::set_max_level(filter.highest());
        logger.filter.store(filter.into());
    }
    Ok(())
}

fn filter(settings: &Settings) -> Result<Filter, LoggingError> {
    match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => Filter::parse(&text),
        _ => Filter::parse(&settings.level),
    }
}

fn sink() -> (Sink, Option<std::io::Error>) {
    if !systemd_journal_logger::connected_to_journal() {
        return (Sink::Stderr, None);
    }
    match JournalLog::empty() {
        Ok(journal) => (Sink::Journal(journal.with_syslog_identifier("faceid".to_owned())), None),
        Err(error) => (Sink::Stderr, Some(error)),
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.filter.load().level_of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match &self.sink {
            Sink::Journal(journal) => {
                // The fields stand in the message too, because `journalctl` shows nothing else by default.
                let text = message(record);
                let fields = record.key_values();
                journal.log(
                    &Record::builder()
                        .metadata(record.metadata().clone())
                        .module_path(record.module_path())
                        .file(record.file())
                        .line(record.line())
                        .key_values(&fields)
                        .args(format_args!("{text}"))
                        .build(),
                );
            }
            Sink::Stderr => {
                let line = line(clock::wall(), record);
                // There is nowhere left to tell of a stderr that is closed.
                let _ = std::io::stderr().lock().write_all(line.as_bytes());
            }
        }
    }

    fn flush(&self) {}
}

/// The whole line for stderr, with its end.
fn line(at: Wall, record: &Record<'_>) -> String {
    let target = record.target();
    let short = target.strip_prefix(OWN_TARGET).map_or(target, |rest| rest.trim_start_matches("::"));
    let level = match record.level() {
        Level::Error => "ERROR",
        Level::Warn => "WARN ",
        Level::Info => "INFO ",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    };
    let origin = if short.is_empty() { String::new() } else { format!("{}: ", escape(short)) };
    format!("{} {level} {origin}{}\n", at.rfc3339(), message(record))
}

/// The message and its fields, on one line.
fn message(record: &Record<'_>) -> String {
    struct Fields<'a>(&'a mut String);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            // For programs; people read the words.
            if key.as_str() == messages::FIELD {
                return Ok(());
            }
            let value = escape(&value.to_string());
            let plain = !value.is_empty() && !value.contains([' ', '"', '=']);
            let shown = if plain { value } else { format!("\"{}\"", value.replace('"', "\\\"")) };
            // Writing to a `String` cannot fail.
            let _ = write!(self.0, " {}={shown}", escape(key.as_str()));
            Ok(())
        }
    }
    let mut text = String::new();
    let _ = write!(Escaping(&mut text), "{}", record.args());
    let _ = record.key_values().visit(&mut Fields(&mut text));
    text
}

/// Text with its control characters, line separators and direction marks spelled out (`\n`, `\u{1b}`, `\u{202e}`).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let _ = Escaping(&mut escaped).write_str(text);
    escaped
}

/// JSON with its control characters, line separators and direction marks spelled out as JSON spells them (`\u202e`): the same value, and
/// nothing that steers a terminal. Between its values JSON has none of them but the ends of its own lines, which stay.
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\n' {
            // Each of them is in the first plane.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether it starts a line, steers a terminal, or turns the direction of what is read.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if steers(c) {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(args: fmt::Arguments<'_>, fields: &[(&str, &str)]) -> String {
        let record = Record::builder().level(Level::Warn).target("faceid_plus::capture").key_values(&fields).args(args).build();
        line(Wall(0), &record)
    }

    #[test]
    fn a_level_that_is_none_is_named() {
        let error = Filter::parse("info,capture=loud").unwrap_err();
        assert!(error.to_string().starts_with("`capture=loud` is no log level"), "{error}");
        assert_eq!(Settings { level: "verbose".into() }.findings()[0].0, "level");
        assert!(Settings::default().findings().is_empty());
    }

    #[test]
    fn text_from_outside_cannot_forge_a_line_or_steer_a_terminal() {
        let hostile = "x\n1970-01-01T00:00:00.000Z INFO  access: granted\u{1b}[2J\u{202e}";
        let line = shown(format_args!("camera said {hostile}"), &[("reason", hostile)]);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line}");
        assert!(line.contains(r"x\n1970") && line.contains(r"\u{1b}[2J\u{202e}"), "{line}");
    }

    #[test]
    fn json_that_is_printed_is_the_same_value_and_steers_no_terminal() {
        let value = serde_json::json!({ "a\u{9b}": "\u{1b}[2J\u{202e}\u{85}\r\n\u{7f}", "b": ["plain é"] });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = escape_json(&text);
            assert!(!shown.chars().any(|c| steers(c) && c != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn a_value_with_spaces_or_quotes_is_one_value() {
        assert_eq!(
            shown(format_args!("camera is away"), &[("camera", "front"), ("error", "no \"such\" host"), ("empty", "")]),
            "1970-01-01T00:00:00.000Z WARN  capture: camera is away camera=front error=\"no \\\"such\\\" host\" empty=\"\"\n"
        );
    }

    #[test]
    fn libraries_are_heard_from_warn_up_unless_they_are_named() {
        let filter = Filter::parse("debug, capture=trace ,rumqttc=info").unwrap();
        assert_eq!(filter.level_of("faceid_plus::gallery"), LevelFilter::Debug);
        assert_eq!(filter.level_of("faceid_plus::capture::pipelines"), LevelFilter::Trace);
        assert_eq!(filter.level_of("faceid_plus::captured"), LevelFilter::Debug);
        assert_eq!(filter.level_of("rumqttc::state"), LevelFilter::Info);
        assert_eq!(filter.level_of("rustls"), LevelFilter::Warn);
        assert_eq!(filter.highest(), LevelFilter::Trace);
        assert_eq!(Filter::parse("off").unwrap().level_of("rustls"), LevelFilter::Off);
    }
}
