//! What is sent against the published contract, `data/contract/asyncapi.json`: a validator of the keywords that its schemas use, and no
//! others: a keyword that it does not know fails. `tests/mqtt/contract.rs` lets an implementation that is not ours read the same schemas.

use std::path::Path;

use serde_json::Value;

/// The published document.
pub(crate) struct Contract(Value);

impl Contract {
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/contract/asyncapi.json");
        Self(serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap())
    }

    /// The name of the message on a topic.
    pub(crate) fn kind_on(&self, topic: &str) -> Option<&str> {
        let is_of = |pattern: &str| {
            let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), topic.split('/').collect());
            pattern.len() == topic.len() && pattern.iter().zip(&topic).all(|(part, word)| part == word || part.starts_with('{'))
        };
        let channels = self.0["channels"].as_object().unwrap();
        channels.iter().find(|(_, channel)| is_of(channel["address"].as_str().unwrap())).map(|(name, _)| name.as_str())
    }

    /// What is wrong with a message.
    pub(crate) fn check(&self, topic: &str, payload: &[u8], retained: bool) -> Result<(), String> {
        let kind = self.kind_on(topic).ok_or_else(|| format!("{topic} is no topic of the contract"))?;
        let content = self.0["components"]["messages"][kind]["contentType"].as_str().unwrap();
        let text = std::str::from_utf8(payload).map_err(|error| format!("{topic}: {error}"))?;
        let value = match content.contains("json") {
            true => serde_json::from_str(text).map_err(|error| format!("{topic}: {error}"))?,
            false => Value::from(text),
        };
        let is_kept = self.0["channels"][kind]["x-retained"] == true;
        if retained && !is_kept {
            return Err(format!("{topic} came retained"));
        }
        check(&self.0["components"]["schemas"][kind], &value, topic)
    }
}

/// What is wrong with a value.
pub(crate) fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |why: &dyn std::fmt::Display| Err(format!("{at}: {why}: {value}"));
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        let holds = match keyword.as_str() {
            "description" => true,
            "type" => match wanted.as_array() {
                Some(types) => types.iter().any(|one| is_type(one, value)),
                None => is_type(wanted, value),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= wanted.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| is_like(wanted.as_str().unwrap(), text)),
            "format" => {
                assert_eq!(wanted, "date-time", "{at}");
                value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok() && text.ends_with('Z'))
            }
            "required" => {
                let missing = wanted.as_array().unwrap().iter().find(|name| value.get(name.as_str().unwrap()).is_none());
                match missing {
                    Some(name) if value.is_object() => return wrong(&format_args!("{name} is missing")),
                    _ => true,
                }
            }
            "properties" | "additionalProperties" => true,
            "items" => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().enumerate().try_for_each(|(number, item)| check(wanted, item, &format!("{at}[{number}]")))?;
                true
            }
            unknown => panic!("{at}: `{unknown}` is no keyword of this validator"),
        };
        if !holds {
            return wrong(&format_args!("{keyword} is {wanted}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let below = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(known), _) => check(known, field, &below)?,
            (None, Some(Value::Bool(false))) => return wrong(&format_args!("{name} is not in the contract")),
            (None, Some(more)) if more.is_object() => check(more, field, &below)?,
            (None, _) => {}
        }
    }
    Ok(())
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    match wanted.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("`{unknown}` is no type"),
    }
}

/// The three patterns of the contract.
fn is_like(pattern: &str, text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match pattern {
        "^[0-9]{20}$" => text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit()),
        "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$" => {
            (1..=64).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(|c| is_word(c) || c == '.')
        }
        r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$" => {
            let parts: Vec<&str> = text.split('.').collect();
            parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.chars().all(is_word))
        }
        unknown => panic!("`{unknown}` is no pattern of this validator"),
    }
}
