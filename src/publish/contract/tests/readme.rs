//! The contract for people.

use std::fmt::Write;

use super::super::{KINDS, Kind, Party, schemas, words};
use crate::access::grant;
use crate::publish::command;

/// What the table does not hold, with marks where its parts go.
const TEXT: &str = include_str!("readme.md");

fn rows(list: &[words::Word], heads: [&str; 3]) -> String {
    let mut out = format!("| {} |\n|---|---|---|\n", heads.join(" | "));
    list.iter().for_each(|word| writeln!(out, "| `{}` | {} | {} |", word.word, word.meaning, word.advice).unwrap());
    out
}

fn topics() -> String {
    let mut out =
        String::from("| topic | written by | read by | QoS | retained | payload | what for |\n|---|---|---|---|---|---|---|\n");
    let parties = |list: &[Party]| list.iter().map(|party| party.as_str()).collect::<Vec<_>>().join(", ");
    for Kind { topic, writers, readers, qos, retained, form, purpose, name, .. } in KINDS {
        let kept = if *retained { "yes" } else { "no" };
        let payload = match form {
            super::Form::CloudEvent | super::Form::Json => format!("[{name}](#{name})"),
            super::Form::Word => "a word".into(),
            super::Form::Signed => "compact JWS".into(),
        };
        let topic = topic.trim_start_matches('/');
        writeln!(out, "| `{topic}` | {} | {} | {qos} | {kept} | {payload} | {purpose} |", parties(writers), parties(readers))
            .unwrap();
    }
    out
}

/// A schema's fields, one line each, nested ones below.
fn fields(out: &mut String, schema: &serde_json::Value, prefix: &str) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let kind = match (&field["const"], &field["enum"], &field["type"]) {
            (serde_json::Value::Null, serde_json::Value::Null, serde_json::Value::Array(types)) => {
                types.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(" or ")
            }
            (serde_json::Value::Null, serde_json::Value::Null, one) => one.as_str().unwrap_or("anything").to_owned(),
            (serde_json::Value::Null, all, _) => {
                let all = all.as_array().into_iter().flatten();
                all.map(|word| format!("`{}`", word.as_str().unwrap_or("null"))).collect::<Vec<_>>().join(" ")
            }
            (one, _, _) => format!("`{one}`"),
        };
        let optional = if required.contains(&name.as_str()) { "" } else { ", may be absent" };
        let what = field["description"].as_str().unwrap_or_default();
        writeln!(out, "| `{path}` | {kind}{optional} | {what} |").unwrap();
        fields(out, field, &format!("{path}."));
        fields(out, &field["items"], &format!("{path}[]."));
    }
}

fn messages() -> String {
    let mut out = String::new();
    for kind in KINDS {
        let schema = (kind.schema)();
        if schema["properties"].is_null() {
            continue;
        }
        write!(out, "### {}\n\n| field | type | what |\n|---|---|---|\n", kind.name).unwrap();
        fields(&mut out, &schema, "");
        out.push('\n');
    }
    for kind in KINDS.iter().filter(|kind| kind.form == super::Form::Word) {
        let schema = (kind.schema)();
        let all = schema["enum"].as_array().into_iter().flatten().filter_map(|word| word.as_str());
        let all = all.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        writeln!(
            out,
            "`{}` is a word: {all}{}{}.",
            kind.topic.trim_start_matches('/'),
            if all.is_empty() { "" } else { ". " },
            schema["description"].as_str().unwrap_or_default()
        )
        .unwrap();
    }
    out
}

fn orders() -> String {
    let mut out = String::from("| verb | what it does | `args` | `result` |\n|---|---|---|---|\n");
    for order in words::ORDERS {
        let arg = |arg: &words::Arg| format!("`{}`{}: {}", arg.name, if arg.needed { " (needed)" } else { "" }, arg.what);
        let args = order.args.iter().map(arg).collect::<Vec<_>>().join("; ");
        writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            order.verb,
            order.purpose,
            if args.is_empty() { "none" } else { &args },
            order.answer
        )
        .unwrap();
    }
    out
}

fn claims() -> String {
    let mut out = String::from("| claim | type | what |\n|---|---|---|\n");
    fields(&mut out, &schemas::claims(), "");
    out
}

pub(super) fn document() -> String {
    let parts = [
        ("TOPICS", topics()),
        ("MESSAGES", messages()),
        ("REASONS", rows(words::REASONS, ["reason", "what it means", "what to do"])),
        ("ALARMS", rows(words::ALARMS, ["alarm", "what it means", "what to do"])),
        ("ATTEMPTS", rows(words::ATTEMPTS, ["reason", "what it means", "what to do"])),
        ("REFUSALS", rows(words::GRANT_REFUSALS, ["refusal", "what it means", "what to do"])),
        ("ORDERS", orders()),
        ("CLAIMS", claims()),
        ("GRANT_LIFETIME", grant::MAX_LIFETIME_S.to_string()),
        ("HOLD_S", grant::MAX_HOLD_S.to_string()),
        ("TOKEN_BYTES", grant::MAX_TOKEN_BYTES.to_string()),
        ("KEYS_BYTES", grant::MAX_JWK_SET_BYTES.to_string()),
        ("KEYS", grant::MAX_KEYS.to_string()),
        ("ENDORSEMENT_DAYS", (grant::MAX_ENDORSEMENT_S / 86_400).to_string()),
        ("COMMAND_LIFETIME", command::MAX_LIFETIME_S.to_string()),
        ("PASSAGE_LIFETIME", grant::PASSAGE_LIFETIME_S.to_string()),
    ];
    let mut text = TEXT.to_owned();
    for (name, part) in parts {
        let mark = format!("«{name}»");
        assert!(text.contains(&mark), "{mark} is nowhere in the text");
        text = text.replace(&mark, part.trim_end());
    }
    assert!(!text.contains(['«', '»']), "a mark is left");
    text
}
