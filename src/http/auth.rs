//! Bearer tokens (RFC 6750) and what each may do. Tokens are compared by their SHA-256, in constant time and with every entry, so that
//! an answer's time tells nothing of how near a guess was.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{HttpError, TOKENS};
use crate::system::secret;

/// The least length of a token, in bytes: 32 characters of base64 are 192 bits.
const LEAST_BYTES: usize = 32;
/// The most tokens.
const MOST: usize = 64;

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Ask who is on a picture, and whether a living face is.
    Recognize,
    /// See and change who is enrolled.
    People,
    /// Rebuild the index.
    Admin,
    /// Read the figures.
    Metrics,
}

impl Scope {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Recognize, Self::People, Self::Admin, Self::Metrics];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recognize => "recognize",
            Self::People => "people",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

struct Entry {
    name: String,
    scopes: Vec<Scope>,
    digest: [u8; 32],
}

/// Who may do what. No `Debug`.
#[derive(Default)]
pub struct Tokens(Vec<Entry>);

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) name: String,
    pub(super) scopes: Vec<Scope>,
}

impl Tokens {
    /// Reads the secret `http.tokens`; none when there is no such secret.
    pub fn read(secrets: &Path) -> Result<Self, HttpError> {
        let (path, _) = secret::locate(TOKENS, secrets);
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::parse(&String::from_utf8_lossy(&secret::read(TOKENS, secrets)?))
    }

    /// Lines `NAME SCOPE[,SCOPE] TOKEN`; empty ones and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let mut entries = Vec::<Entry>::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |reason| HttpError::Token { line: index + 1, reason };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, scopes, token] = fields[..] else { return Err(wrong("write NAME SCOPE[,SCOPE] TOKEN")) };
            let scope = |text: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
            let scopes = scopes.split(',').map(scope).collect::<Option<Vec<_>>>();
            let scopes = scopes.ok_or_else(|| wrong("scopes are recognize, people, admin and metrics"))?;
            if token.len() < LEAST_BYTES {
                return Err(wrong("the token is too short: 32 characters or more, for example of `openssl rand -base64 32`"));
            }
            if [super::limits::ANYBODY, super::limits::STRANGERS].contains(&name) || entries.iter().any(|entry| entry.name == name)
            {
                return Err(wrong("the name is taken"));
            }
            if entries.len() == MOST {
                return Err(wrong("there are too many tokens"));
            }
            entries.push(Entry { name: name.to_owned(), scopes, digest: Sha256::digest(token).into() });
        }
        Ok(Self(entries))
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose tokens there are with what each may do, in the file's order.
    pub fn list(&self) -> impl Iterator<Item = (&str, String)> {
        let scopes = |entry: &Entry| entry.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",");
        self.0.iter().map(move |entry| (entry.name.as_str(), scopes(entry)))
    }

    /// The names, in the file's order.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Whose token it is.
    pub(super) fn bearer(&self, token: &str) -> Option<Bearer> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = u32::MAX;
        for (index, entry) in (0u32..).zip(&self.0) {
            found.conditional_assign(&index, entry.digest.ct_eq(&digest));
        }
        let entry = self.0.get(found as usize)?;
        Some(Bearer { name: entry.name.clone(), scopes: entry.scopes.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

    #[test]
    fn lines_that_are_no_tokens_are_refused_by_number_and_without_the_token() {
        for (text, line) in [
            ("panel recognize\n".to_owned(), 1),
            (format!("# comment\n\npanel everything {LONG}"), 3),
            ("panel recognize short".to_owned(), 1),
            (format!("a people {LONG}\na admin {LONG}x"), 2),
            (format!("- people {LONG}"), 1),
            (format!("? people {LONG}"), 1),
            (format!("a people {LONG} more"), 1),
        ] {
            let error = Tokens::parse(&text).err().unwrap().to_string();
            assert!(error.contains(&format!("line {line}")) && !error.contains(LONG) && !error.contains("short\""), "{error}");
        }
        let many: String = (0..=MOST).map(|n| format!("n{n} people {LONG}{n}\n")).collect();
        assert!(Tokens::parse(&many).is_err());
    }

    #[test]
    fn a_token_is_known_whole_or_not_at_all() {
        let tokens = Tokens::parse(&format!("panel recognize,metrics {LONG}\nclerk people {LONG}2")).unwrap();
        assert_eq!(tokens.bearer(LONG).unwrap().scopes, [Scope::Recognize, Scope::Metrics]);
        assert_eq!(tokens.bearer(&format!("{LONG}2")).unwrap().name, "clerk");
        for wrong in ["", &LONG[1..], &format!("{LONG} "), &LONG.to_uppercase()] {
            assert_eq!(tokens.bearer(wrong), None);
        }
        assert_eq!(Tokens::default().bearer(""), None);
    }
}
