//! The grant: a compact JWS (RFC 7515) signed with Ed25519 (RFC 8032, `EdDSA` of RFC 8037), bound to one door, short-lived and of
//! single use. A door controller acts on nothing else.
//!
//! Only the exact form that [`GrantKey::sign`] makes is taken: a header of `alg`, `kid` and `typ` alone, so that no `crit`, `jwk` or
//! `jku` of an attacker is ever looked at, and no algorithm but EdDSA. Whether a `jti` was seen before is the controller's to
//! remember; nothing here keeps state or reads a clock.
//!
//! Seven more things are signed in this form, each with a `typ` of its own so that none passes for another (RFC 8725, section 3.11):
//! an operator's command ([`open_command`]), what holds a door open ([`Claims::hold_s`]), the endorsement by which a key that controllers pin introduces its successor, what a
//! device says of its gallery's age ([`EpochClaim`]), what a door says became of a grant ([`PassageClaim`]), whose a backup is
//! ([`BackupClaim`]), and which entry is the last of the audit trail ([`HeadClaim`]).
//!
//! **Rotation.** The published set ([`KeySet::published`]) is a plain JWK set that anybody can read, with one member more:
//! `endorsements`, statements signed by keys of the set. A topic of a broker is no proof of anything, so a controller trusts the keys
//! that it pins and, through [`KeySet::learn`], those that a pinned key endorses, until the endorsement's end. A learnt key endorses
//! nothing further: a rotation reaches a controller by itself once, and after it the new key is pinned. What is published can add
//! keys and never take a pinned one away; only the operator unpins. An endorsement carries a serial number, and the one with the highest
//! says which keys are learnt: a newer one without a key takes it back, and an older one is refused by whoever has seen a newer one
//! (which a controller remembers on its disk). Beside it stands the same word without a number, for controllers of before.

mod claims;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

pub use claims::{BackupClaim, EpochClaim, HeadClaim, PassageClaim, open_backup, open_head};

use crate::types::{DeviceId, DoorId, PersonId, Wall};

/// Bytes of a key's seed (RFC 8032's private key).
pub const SEED_BYTES: usize = 32;
/// The longest token that is looked at, in bytes; ours have about 500.
pub const MAX_TOKEN_BYTES: usize = 2048;
/// The longest life that is believed, in seconds: a grant opens a door now or not at all.
pub const MAX_LIFETIME_S: i64 = 300;
/// The largest JWK set that is looked at, in bytes.
pub const MAX_JWK_SET_BYTES: usize = 16 * 1024;
/// The most keys of a set; a rotation needs two.
pub const MAX_KEYS: usize = 16;
/// The longest life of an endorsement that is believed, in seconds. The device signs it anew every day while it has both keys.
pub const MAX_ENDORSEMENT_S: i64 = 14 * 24 * 3600;
/// How long a claim about a passage holds, in seconds: as long as a grant can still be taken back.
pub const PASSAGE_LIFETIME_S: i64 = 300;
/// The longest command that is looked at, in bytes of its token.
pub const MAX_COMMAND_BYTES: usize = 32 * 1024;
/// `typ` of a grant.
const GRANT: &str = "JWT";
/// For how many seconds a word that holds a door open may keep it unlocked.
pub const MAX_HOLD_S: u32 = 30;
/// `typ` of a word that holds a door open.
const HOLD: &str = "faceid-hold+jwt";
/// `typ` of an operator's command.
const COMMAND: &str = "faceid-command+jwt";
/// `typ` of an endorsement with a serial number.
const ENDORSEMENT: &str = "faceid-endorsement+jwt";
/// `typ` of an endorsement without one: an older device's, or an older controller's.
const ENDORSEMENT_1: &str = "faceid-keys+jwt";
/// `typ` of a claim about a gallery's age.
const EPOCH: &str = "faceid-epoch+jwt";
/// `typ` of a claim about a passage.
const PASSAGE: &str = "faceid-passage+jwt";
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 64;

/// Why a key, a key set or a token was refused. The token's content is never in it. Endorsements and commands fail in the same ways.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    /// Not 32 bytes of seed.
    #[error("a grant-signing key is exactly {SEED_BYTES} bytes, this one has {found}: make one with `faceid keygen`")]
    KeyLength {
        /// Bytes that were given.
        found: usize,
    },
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers: {0}")]
    Random(String),
    /// The JWK set is no such thing.
    #[error("this is no JWK set of Ed25519 keys: {0}")]
    KeySet(String),
    /// Not three parts, not base64url, not JSON, a member that is not ours, or too long.
    #[error("the grant is malformed: {0}")]
    Malformed(&'static str),
    /// Signed by another algorithm, or by none.
    #[error("the grant's algorithm is not EdDSA")]
    Algorithm,
    /// Signed by a key that is not in the set.
    #[error("the grant is signed by an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the grant's signature is wrong")]
    Signature,
    /// For another door.
    #[error("the grant is for another door")]
    Audience,
    /// Its time has not come: the clocks disagree, or it was made beforehand.
    #[error("the grant is not valid yet: compare the clocks of device and door")]
    NotYet,
    /// Its time is over.
    #[error("the grant has expired")]
    Expired,
    /// It claims to live longer than any grant may, or to end before it begins.
    #[error("the grant's lifetime is impossible")]
    Lifetime,
}

impl GrantError {
    /// The word of the published contract for a token that opens nothing; of a key or a set, `keys`.
    pub fn as_str(&self) -> &'static str {
        match self {
            GrantError::KeyLength { .. } | GrantError::Random(_) | GrantError::KeySet(_) => "keys",
            GrantError::Malformed(_) => "malformed",
            GrantError::Algorithm => "algorithm",
            GrantError::UnknownKey => "unknown-key",
            GrantError::Signature => "signature",
            GrantError::Audience => "audience",
            GrantError::NotYet => "not-yet",
            GrantError::Expired => "expired",
            GrantError::Lifetime => "lifetime",
        }
    }
}

/// What a grant says (RFC 7519's registered claims; times in whole seconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The device that decided.
    pub iss: DeviceId,
    /// The one door that it opens.
    pub aud: DoorId,
    /// The person who was recognised.
    pub sub: PersonId,
    /// When it was signed.
    pub iat: i64,
    /// From when on it is valid.
    pub nbf: i64,
    /// From when on it is void.
    pub exp: i64,
    /// Its own id, 1 to 64 letters, digits, `-` or `_`: a controller takes it once.
    pub jti: String,
    /// Where an operator holds the door open: for how many seconds from its arrival it is to stay unlocked, at most [`MAX_HOLD_S`]; nothing
    /// ends that. Such a token has a type of its own, which a controller of before takes for no grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_s: Option<u32>,
}

/// Only these three members; a fourth, and a second of one name, make the token malformed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
}

/// RFC 7517 has readers pass over members that they do not know.
#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endorsements: Vec<String>,
}

/// What a key says of the keys of its device.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endorsement {
    iss: DeviceId,
    iat: i64,
    exp: i64,
    keys: Vec<Jwk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<u64>,
}

/// What the pinned keys say of others, by the endorsements with the highest serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learnt {
    /// The keys that are endorsed and not pinned; none where all are taken back.
    pub keys: KeySet,
    /// The second from which they are not endorsed any more.
    pub until: i64,
    /// The serial number; 0 where there is none.
    pub serial: u64,
}

/// The device's signing key. Its memory is cleared when it goes, and it prints as its id alone.
pub struct GrantKey {
    key: SigningKey,
    kid: String,
}

impl GrantKey {
    /// A key from its 32-byte seed, as `faceid keygen` writes it.
    pub fn from_seed(seed: &[u8]) -> Result<Self, GrantError> {
        let mut exact = Zeroizing::new([0u8; SEED_BYTES]);
        if seed.len() != SEED_BYTES {
            return Err(GrantError::KeyLength { found: seed.len() });
        }
        exact.copy_from_slice(seed);
        let key = SigningKey::from_bytes(&exact);
        let kid = thumbprint(&key.verifying_key());
        Ok(Self { key, kid })
    }

    /// A fresh key from the operating system's random numbers.
    pub fn generate() -> Result<Self, GrantError> {
        let mut seed = Zeroizing::new([0u8; SEED_BYTES]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| GrantError::Random(error.to_string()))?;
        Self::from_seed(seed.as_slice())
    }

    /// The seed, to be written to a credential or a 0600 file and nowhere else.
    pub fn seed(&self) -> Zeroizing<[u8; SEED_BYTES]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The key's id: its RFC 7638 thumbprint (SHA-256, base64url).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The half that controllers pin.
    pub fn public(&self) -> PublicKey {
        PublicKey { key: self.key.verifying_key(), kid: self.kid.clone() }
    }

    /// The compact JWS of the claims.
    pub fn sign(&self, claims: &Claims) -> String {
        self.sign_as(GRANT, &json(claims))
    }

    /// The compact JWS of claims that hold a door open.
    pub fn sign_hold(&self, claims: &Claims) -> String {
        self.sign_as(HOLD, &json(claims))
    }

    /// The compact JWS of a command, whose text the publisher's command room defines.
    pub fn sign_command(&self, text: &str) -> String {
        self.sign_as(COMMAND, text)
    }

    /// The compact JWS of a claim about a gallery's age.
    pub fn sign_epoch(&self, claim: &EpochClaim) -> String {
        self.sign_as(EPOCH, &json(claim))
    }

    /// The compact JWS of a claim about a passage.
    pub fn sign_passage(&self, claim: &PassageClaim) -> String {
        self.sign_as(PASSAGE, &json(claim))
    }

    /// Any text signed as a claim about a passage, to see what becomes of it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn sign_passage_text(&self, text: &str) -> String {
        self.sign_as(PASSAGE, text)
    }

    /// This key's word that `keys` and no others are `device`'s, from `now` for `lifetime`: see the module's notes on rotation. Each
    /// word's `serial` is higher than that of the one before.
    pub fn endorse(&self, keys: &KeySet, device: &DeviceId, now: Wall, lifetime: Duration, serial: u64) -> String {
        self.endorse_as(ENDORSEMENT, keys, device, (now, lifetime), Some(serial))
    }

    /// [`GrantKey::endorse`] for controllers that know no serial numbers.
    pub fn endorse_unnumbered(&self, keys: &KeySet, device: &DeviceId, now: Wall, lifetime: Duration) -> String {
        self.endorse_as(ENDORSEMENT_1, keys, device, (now, lifetime), None)
    }

    fn endorse_as(
        &self,
        typ: &str,
        keys: &KeySet,
        device: &DeviceId,
        (now, lifetime): (Wall, Duration),
        serial: Option<u64>,
    ) -> String {
        let iat = now.unix_seconds();
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(MAX_ENDORSEMENT_S).min(MAX_ENDORSEMENT_S);
        let keys = keys.jwks();
        self.sign_as(typ, &json(&Endorsement { iss: device.clone(), iat, exp: iat.saturating_add(seconds), keys, serial }))
    }

    /// Any text signed as an endorsement, to see what becomes of it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn sign_endorsement_text(&self, text: &str) -> String {
        self.sign_as(ENDORSEMENT, text)
    }

    /// Any header and any text, signed, to see what becomes of it.
    #[cfg(test)]
    pub(crate) fn sign_raw(&self, header: &str, payload: &str) -> String {
        self.sign_parts(header, payload)
    }

    fn sign_as(&self, typ: &str, payload: &str) -> String {
        let header = Header { alg: "EdDSA".into(), kid: self.kid.clone(), typ: Some(typ.into()) };
        self.sign_parts(&json(&header), payload)
    }

    fn sign_parts(&self, header: &str, payload: &str) -> String {
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.to_bytes()));
        token
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantKey({})", self.kid)
    }
}

/// One public key and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    kid: String,
}

impl PublicKey {
    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The keys that a controller trusts: the current one, and the next or the last during a rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// A set of these keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Reads a JWK set (RFC 7517). Every key in it must be an Ed25519 one that is no weak point of the curve; a `kid` is computed,
    /// and one that is given must be the same.
    pub fn from_jwk_set(text: &str) -> Result<Self, GrantError> {
        let wrong = |what: String| GrantError::KeySet(what);
        if text.len() > MAX_JWK_SET_BYTES {
            return Err(wrong(format!("it is longer than {MAX_JWK_SET_BYTES} bytes")));
        }
        let set: JwkSet = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if set.keys.is_empty() || set.keys.len() > MAX_KEYS {
            return Err(wrong(format!("it has {} keys, allowed are 1 to {MAX_KEYS}", set.keys.len())));
        }
        set.keys.iter().map(public_key).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// The JWK set as JSON, for a file that controllers pin.
    pub fn to_jwk_set(&self) -> String {
        self.published(Vec::new())
    }

    /// The JWK set with its endorsements, as it is published retained.
    pub fn published(&self, endorsements: Vec<String>) -> String {
        json(&JwkSet { keys: self.jwks(), endorsements })
    }

    /// What these pinned keys say of others in what `device` has published; `None` when no current word of a pinned key is in it, which
    /// is how every forgery ends. Whether a word with a higher serial number was seen before is the caller's to remember.
    pub fn learn(&self, published: &str, device: &DeviceId, now: Wall, leeway: Duration) -> Result<Option<Learnt>, GrantError> {
        let wrong = |what: String| GrantError::KeySet(what);
        if published.len() > MAX_JWK_SET_BYTES {
            return Err(wrong(format!("it is longer than {MAX_JWK_SET_BYTES} bytes")));
        }
        let set: JwkSet = serde_json::from_str(published).map_err(|error| wrong(error.to_string()))?;
        let mut learnt: Option<Learnt> = None;
        for token in set.endorsements.iter().take(MAX_KEYS) {
            let numbered = open(token, self, &[Some(ENDORSEMENT)], MAX_JWK_SET_BYTES);
            let is_numbered = numbered.is_ok();
            let Ok(payload) = numbered.or_else(|_| open(token, self, &[Some(ENDORSEMENT_1)], MAX_JWK_SET_BYTES)) else { continue };
            let said: Endorsement =
                serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("an endorsement is not ours"))?;
            if said.serial.is_some_and(|serial| serial > 0) != is_numbered {
                return Err(GrantError::Malformed("an endorsement is not ours"));
            }
            let lifetime = said.exp.checked_sub(said.iat).ok_or(GrantError::Lifetime)?;
            if said.iss != *device || lifetime > MAX_ENDORSEMENT_S || !is_current(said.iat, said.exp, now, leeway) {
                continue;
            }
            if said.keys.len() > MAX_KEYS {
                return Err(wrong(format!("an endorsement has {} keys, allowed are {MAX_KEYS}", said.keys.len())));
            }
            let serial = said.serial.unwrap_or(0);
            let keys = said.keys.iter().map(public_key).collect::<Result<Vec<_>, _>>()?;
            let highest = match &mut learnt {
                Some(highest) if highest.serial > serial => continue,
                Some(highest) if highest.serial == serial => highest,
                other => other.insert(Learnt { keys: Self::default(), until: i64::MAX, serial }),
            };
            for key in keys {
                if self.find(&key.kid).is_none() && highest.keys.find(&key.kid).is_none() {
                    highest.keys.0.push(key);
                    highest.until = highest.until.min(said.exp);
                }
            }
        }
        Ok(learnt)
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These keys and those of another set.
    pub fn with(&self, more: &KeySet) -> Self {
        Self(self.0.iter().chain(&more.0).cloned().collect())
    }

    /// The ids of the keys.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(PublicKey::kid)
    }

    fn jwks(&self) -> Vec<Jwk> {
        let jwk = |key: &PublicKey| Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: URL_SAFE_NO_PAD.encode(key.key.as_bytes()),
            kid: Some(key.kid.clone()),
            usage: Some("sig".into()),
            alg: Some("EdDSA".into()),
        };
        self.0.iter().map(jwk).collect()
    }

    fn find(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.kid == kid)
    }
}

/// Checks a token of unknown origin for door `audience` at `now`, allowing the two clocks to differ by `leeway`.
///
/// The order is: form, algorithm, key, signature, then the claims, so that nothing unsigned is ever interpreted. The caller still
/// has to refuse a `jti` that it has seen.
pub fn verify(token: &str, keys: &KeySet, audience: &DoorId, now: Wall, leeway: Duration) -> Result<Claims, GrantError> {
    let (payload, header) = open_by(token, keys, &[None, Some(GRANT), Some(HOLD)], MAX_TOKEN_BYTES)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("its claims are not ours"))?;
    let jti_is_plain = claims.jti.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI_BYTES || !jti_is_plain {
        return Err(GrantError::Malformed("its claims are not ours"));
    }
    if claims.hold_s.is_some() != (header.typ.as_deref() == Some(HOLD)) {
        return Err(GrantError::Malformed("its claims are not ours"));
    }
    if claims.hold_s.is_some_and(|seconds| seconds > MAX_HOLD_S) {
        return Err(GrantError::Lifetime);
    }
    check_claims(&claims, audience, now, leeway)?;
    Ok(claims)
}

/// The signed text of an operator's command and the id of the key that signed it. Everything inside is the caller's to judge.
pub fn open_command(token: &str, keys: &KeySet) -> Result<(Vec<u8>, String), GrantError> {
    open_by(token, keys, &[Some(COMMAND)], MAX_COMMAND_BYTES).map(|(text, header)| (text, header.kid))
}

/// A claim about a gallery's age, once its signature is known to be good.
pub fn open_epoch(token: &str, keys: &KeySet) -> Result<EpochClaim, GrantError> {
    let payload = open(token, keys, &[Some(EPOCH)], MAX_TOKEN_BYTES)?;
    serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("its claims are not ours"))
}

/// A claim about a passage, once its signature is known to be good. Its door, its time and whether it came before are the caller's to
/// judge.
pub fn open_passage(token: &str, keys: &KeySet) -> Result<PassageClaim, GrantError> {
    let payload = open(token, keys, &[Some(PASSAGE)], MAX_TOKEN_BYTES)?;
    serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("its claims are not ours"))
}

/// The payload of a token of one of these types, once its signature is known to be good.
fn open(token: &str, keys: &KeySet, types: &[Option<&str>], max_bytes: usize) -> Result<Vec<u8>, GrantError> {
    open_by(token, keys, types, max_bytes).map(|(payload, _)| payload)
}

/// The same with its header.
fn open_by(token: &str, keys: &KeySet, types: &[Option<&str>], max_bytes: usize) -> Result<(Vec<u8>, Header), GrantError> {
    if token.len() > max_bytes {
        return Err(GrantError::Malformed("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(GrantError::Malformed("it has not three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or(GrantError::Malformed("it has not three parts"))?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| GrantError::Malformed("its header is not ours"))?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| GrantError::Malformed("its header is not ours"))?;
    if header.alg != "EdDSA" {
        return Err(GrantError::Algorithm);
    }
    if !types.contains(&header.typ.as_deref()) {
        return Err(GrantError::Malformed("its header is not ours"));
    }
    let key = keys.find(&header.kid).ok_or(GrantError::UnknownKey)?;
    check_signature(&key.key, signed, signature)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| GrantError::Malformed("its payload is no base64url"))?;
    Ok((payload, header))
}

fn is_current(begins: i64, ends: i64, now: Wall, leeway: Duration) -> bool {
    let now = now.unix_seconds();
    let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
    begins <= now.saturating_add(leeway) && now < ends.saturating_add(leeway)
}

fn check_claims(claims: &Claims, audience: &DoorId, now: Wall, leeway: Duration) -> Result<(), GrantError> {
    if claims.aud != *audience {
        return Err(GrantError::Audience);
    }
    // `exp` counts from the earlier of the two beginnings, so that neither of them can stretch the life.
    let begins = claims.iat.min(claims.nbf);
    let lifetime = claims.exp.checked_sub(begins).ok_or(GrantError::Lifetime)?;
    if claims.exp <= claims.nbf || claims.exp <= claims.iat || lifetime > MAX_LIFETIME_S {
        return Err(GrantError::Lifetime);
    }
    let now = now.unix_seconds();
    let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
    if claims.nbf.max(claims.iat) > now.saturating_add(leeway) {
        return Err(GrantError::NotYet);
    }
    if now >= claims.exp.saturating_add(leeway) {
        return Err(GrantError::Expired);
    }
    Ok(())
}

/// Strict verification: no weak key, no other encoding of a signature (the crate's notes on malleability).
fn check_signature(key: &VerifyingKey, signed: &str, signature: &str) -> Result<(), GrantError> {
    let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|_| GrantError::Malformed("its signature is no base64url"))?;
    let signature = Signature::from_slice(&bytes).map_err(|_| GrantError::Signature)?;
    key.verify_strict(signed.as_bytes(), &signature).map_err(|_| GrantError::Signature)
}

fn public_key(jwk: &Jwk) -> Result<PublicKey, GrantError> {
    let wrong = |what: &str| GrantError::KeySet(what.to_owned());
    if jwk.kty != "OKP" || jwk.crv != "Ed25519" {
        return Err(wrong("a key is not of `kty` OKP and `crv` Ed25519"));
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") || jwk.alg.as_deref().is_some_and(|alg| alg != "EdDSA") {
        return Err(wrong("a key is meant for something else than EdDSA signatures"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(&jwk.x).map_err(|_| wrong("a key's `x` is no base64url"))?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| wrong("a key's `x` has not 32 bytes"))?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong("a key's `x` is no point of the curve"))?;
    if key.is_weak() {
        return Err(wrong("a key is a weak point of the curve"));
    }
    let kid = thumbprint(&key);
    if jwk.kid.as_ref().is_some_and(|given| *given != kid) {
        return Err(wrong("a key's `kid` is not its RFC 7638 thumbprint"));
    }
    Ok(PublicKey { key, kid })
}

/// RFC 7638 with the members that RFC 8037 names, in lexicographic order and without white space.
fn thumbprint(key: &VerifyingKey) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(key.as_bytes()));
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))
}

/// Structs of strings and integers always serialise; should that ever change, an empty text verifies nowhere.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 8037, appendix A.
    const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    const JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    const NOW: Wall = Wall(1_700_000_000_000);
    const LEEWAY: Duration = Duration::from_secs(2);

    fn rfc_key() -> GrantKey {
        GrantKey::from_seed(&URL_SAFE_NO_PAD.decode(SEED).unwrap()).unwrap()
    }

    fn claims() -> Claims {
        let now = NOW.unix_seconds();
        Claims {
            iss: DeviceId::new("gate").unwrap(),
            aud: door("front"),
            sub: PersonId::new("p0").unwrap(),
            iat: now,
            nbf: now,
            exp: now + 10,
            jti: "0190-a_Z".into(),
            hold_s: None,
        }
    }

    fn door(id: &str) -> DoorId {
        DoorId::new(id).unwrap()
    }

    #[test]
    fn a_hold_is_a_token_of_its_own_that_no_grant_passes_for() {
        let key = GrantKey::generate().unwrap();
        let keys = KeySet::new([key.public()]);
        let check = |token: &str| verify(token, &keys, &door("front"), NOW, Duration::from_secs(2));
        for seconds in [0, 1, MAX_HOLD_S] {
            let held = Claims { hold_s: Some(seconds), ..claims() };
            assert_eq!(check(&key.sign_hold(&held)).unwrap(), held);
            // Under a grant's type it would open the door at a controller that knows no holds.
            assert!(matches!(check(&key.sign(&held)), Err(GrantError::Malformed(_))));
        }
        assert!(matches!(check(&key.sign_hold(&claims())), Err(GrantError::Malformed(_))));
        let long = Claims { hold_s: Some(MAX_HOLD_S + 1), ..claims() };
        assert!(matches!(check(&key.sign_hold(&long)), Err(GrantError::Lifetime)));
    }

    fn check(token: &str, key: &GrantKey) -> Result<Claims, GrantError> {
        verify(token, &KeySet::new([key.public()]), &door("front"), NOW, LEEWAY)
    }

    #[test]
    fn hostile_tokens_are_refused_by_their_form() {
        let key = rfc_key();
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        for token in ["", ".", "..", "...", "a.b", "a.b.c", "é.é.é", JWS, long.as_str()] {
            assert!(matches!(check(token, &key), Err(GrantError::Malformed(_))), "{token}");
        }
    }

    #[test]
    fn a_claim_of_a_gallerys_age_is_no_grant_and_a_grant_is_no_claim() {
        let key = rfc_key();
        let keys = KeySet::new([key.public()]);
        let claim = EpochClaim {
            iss: DeviceId::new("gate").unwrap(),
            iat: 1,
            gallery: "00".to_owned(),
            epoch: 7,
            file: Some((3, "ab".to_owned())),
            memory: None,
        };
        let token = key.sign_epoch(&claim);
        assert!(matches!(check(&token, &key), Err(GrantError::Malformed(_))) && open_command(&token, &keys).is_err());
        for other in [key.sign(&claims()), key.sign_command("{}"), key.sign_as(EPOCH, r#"{"epoch":7}"#)] {
            assert!(open_epoch(&other, &keys).is_err());
        }
        assert_eq!(open_epoch(&token, &keys), Ok(claim));
        // As programs said it that knew of no tag.
        let older = open_epoch(&key.sign_as(EPOCH, r#"{"iss":"gate","iat":1,"gallery":"00","epoch":7}"#), &keys).unwrap();
        assert_eq!((older.epoch, older.file), (7, None));
    }

    #[test]
    fn a_claim_of_a_passage_is_no_grant_and_a_grant_is_no_claim() {
        let key = rfc_key();
        let keys = KeySet::new([key.public()]);
        let claim = PassageClaim {
            iss: door("front"),
            aud: DeviceId::new("gate").unwrap(),
            iat: NOW.unix_seconds(),
            exp: NOW.unix_seconds() + 10,
            jti: "p1".to_owned(),
            grant: "g1".to_owned(),
            passed: false,
        };
        let token = key.sign_passage(&claim);
        assert!(matches!(check(&token, &key), Err(GrantError::Malformed(_))));
        assert!(open_command(&token, &keys).is_err() && open_epoch(&token, &keys).is_err());
        for other in [key.sign(&claims()), key.sign_command(&json(&claim)), key.sign_as(PASSAGE, r#"{"passed":true}"#)] {
            assert!(open_passage(&other, &keys).is_err());
        }
        assert_eq!(open_passage(&token, &keys), Ok(claim));
    }

    #[test]
    fn no_algorithm_and_another_algorithm_are_refused_whatever_the_signature() {
        let key = rfc_key();
        for alg in ["none", "HS256", "ES256", "eddsa", "Ed25519"] {
            let header = format!(r#"{{"alg":"{alg}","kid":"{THUMBPRINT}","typ":"JWT"}}"#);
            assert_eq!(check(&key.sign_parts(&header, &json(&claims())), &key), Err(GrantError::Algorithm));
        }
    }

    #[test]
    fn headers_with_another_member_are_refused_though_signed() {
        let key = rfc_key();
        for more in [r#""crit":["exp"]"#, r#""jku":"https://example.org""#, r#""b64":false"#, r#""alg":"EdDSA""#, r#""jwk":{}"#] {
            let header = format!(r#"{{"alg":"EdDSA","kid":"{THUMBPRINT}",{more}}}"#);
            let token = key.sign_parts(&header, &json(&claims()));
            assert!(matches!(check(&token, &key), Err(GrantError::Malformed(_))), "{more}");
        }
    }

    #[test]
    fn another_key_another_door_and_another_time_are_refused() {
        let (key, other) = (rfc_key(), GrantKey::generate().unwrap());
        assert_eq!(check(&other.sign(&claims()), &key), Err(GrantError::UnknownKey));
        let mut stolen_kid = GrantKey::from_seed(other.seed().as_slice()).unwrap();
        stolen_kid.kid = key.kid().to_owned();
        assert_eq!(check(&stolen_kid.sign(&claims()), &key), Err(GrantError::Signature));

        let token = key.sign(&claims());
        let keys = KeySet::new([key.public()]);
        let at = |door_id: &str, seconds: i64| verify(&token, &keys, &door(door_id), Wall(NOW.0 + seconds * 1000), LEEWAY);
        assert_eq!(at("back", 0), Err(GrantError::Audience));
        assert_eq!(at("front", -3), Err(GrantError::NotYet));
        assert_eq!(at("front", 12), Err(GrantError::Expired));
        assert!(at("front", -2).is_ok());
        assert!(at("front", 11).is_ok());
    }

    #[test]
    fn impossible_lifetimes_are_refused() {
        let key = rfc_key();
        let now = NOW.unix_seconds();
        for (iat, nbf, exp) in [
            (now, now, now),
            (now, now, now - 1),
            (now, now, now + MAX_LIFETIME_S + 1),
            (now - MAX_LIFETIME_S, now, now + 10),
            (now, now - MAX_LIFETIME_S, now + 10),
            (i64::MIN, now, i64::MAX),
        ] {
            let token = key.sign(&Claims { iat, nbf, exp, ..claims() });
            assert_eq!(check(&token, &key), Err(GrantError::Lifetime), "{iat} {nbf} {exp}");
        }
    }

    #[test]
    fn strange_ids_are_refused() {
        let key = rfc_key();
        for jti in ["", "a b", "../x", "é", &"x".repeat(65)] {
            let token = key.sign(&Claims { jti: jti.to_owned(), ..claims() });
            assert!(matches!(check(&token, &key), Err(GrantError::Malformed(_))), "{jti}");
        }
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        let key = rfc_key();
        let token = key.sign(&claims());
        for index in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(check(&text, &key).is_err(), "byte {index} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn key_sets_with_anything_but_sound_ed25519_keys_are_refused() {
        let weak = URL_SAFE_NO_PAD.encode([0u8; 32]);
        let many = vec![format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"}}"#); MAX_KEYS + 1].join(",");
        for keys in [
            String::new(),
            r#"{"kty":"oct","crv":"Ed25519","x":"AA"}"#.into(),
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.into(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.into(),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{weak}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"mine"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","use":"enc"}}"#),
            many,
        ] {
            let refused = KeySet::from_jwk_set(&format!(r#"{{"keys":[{keys}]}}"#));
            assert!(matches!(refused, Err(GrantError::KeySet(_))), "{keys}");
        }
        assert!(matches!(GrantKey::from_seed(&[0; 31]), Err(GrantError::KeyLength { found: 31 })));
    }

    #[test]
    fn the_examples_of_rfc_8037_come_out_as_printed() {
        let key = rfc_key();
        assert_eq!(URL_SAFE_NO_PAD.encode(key.public().key.as_bytes()), X);
        assert_eq!(key.kid(), THUMBPRINT);
        assert_eq!(key.sign_parts(r#"{"alg":"EdDSA"}"#, "Example of Ed25519 signing"), JWS);
        let (signed, signature) = JWS.rsplit_once('.').unwrap();
        assert_eq!(check_signature(&key.public().key, signed, signature), Ok(()));
    }

    #[test]
    fn one_kind_of_token_never_passes_for_another() {
        let key = rfc_key();
        let keys = KeySet::new([key.public()]);
        let device = DeviceId::new("gate").unwrap();
        let (grant, command) = (key.sign(&claims()), key.sign_command(&json(&claims())));
        let endorsement = key.endorse(&keys, &device, NOW, LEEWAY, 1);
        let head = key.sign_head(&HeadClaim { iss: device.clone(), iat: 0, n: 1, hash: String::new() });
        let backup = key.sign_backup(&BackupClaim { iss: device.clone(), iat: 0, digest: String::new() });
        for other in [&grant, &command, &endorsement, &backup] {
            assert!(matches!(open_head(other, &keys), Err(GrantError::Malformed(_))));
        }
        for other in [&grant, &command, &endorsement, &head] {
            assert!(matches!(open_backup(other, &keys), Err(GrantError::Malformed(_))));
        }
        assert!(open_head(&head, &keys).is_ok() && open_backup(&backup, &keys).is_ok());
        for other in [&command, &endorsement, &head, &backup] {
            assert!(matches!(check(other, &key), Err(GrantError::Malformed(_))));
        }
        for other in [&grant, &endorsement, &head, &backup] {
            assert!(matches!(open_command(other, &keys), Err(GrantError::Malformed(_))));
        }
        assert!(open_command(&command, &keys).is_ok());
        for other in [grant, command, head, backup] {
            assert_eq!(keys.learn(&keys.published(vec![other]), &device, NOW, LEEWAY), Ok(None));
        }
    }

    #[test]
    fn a_published_key_is_learnt_only_by_a_current_word_of_a_pinned_one_for_this_device() {
        let (old, new, thief) = (rfc_key(), GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let pinned = KeySet::new([old.public()]);
        let both = KeySet::new([new.public(), old.public()]);
        let device = DeviceId::new("gate").unwrap();
        let day = Duration::from_secs(24 * 3600);
        let learn = |endorsements: Vec<String>, now: Wall| pinned.learn(&both.published(endorsements), &device, now, LEEWAY);
        let word = old.endorse(&both, &device, NOW, day, 7);

        assert_eq!(learn(vec![], NOW), Ok(None), "a set alone is no proof");
        let stolen = KeySet::new([thief.public()]);
        assert_eq!(learn(vec![thief.endorse(&stolen, &device, NOW, day, 9)], NOW), Ok(None));
        // The learnt key introduces nobody.
        assert_eq!(learn(vec![new.endorse(&stolen, &device, NOW, day, 9)], NOW), Ok(None));
        assert_eq!(learn(vec![old.endorse(&both, &DeviceId::new("other").unwrap(), NOW, day, 9)], NOW), Ok(None));
        assert_eq!(learn(vec![word.clone()], NOW.plus(day + LEEWAY)), Ok(None));
        assert_eq!(learn(vec![word.clone()], Wall(NOW.0 - 10_000)), Ok(None));
        for index in 0..word.len() {
            let mut bytes = word.clone().into_bytes();
            bytes[index] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(!matches!(learn(vec![text], NOW), Ok(Some(_))), "byte {index}");
            }
        }
        let Learnt { keys: learnt, until, serial } = learn(vec![word], NOW).unwrap().unwrap();
        assert_eq!((learnt.kids().collect::<Vec<_>>(), serial), (vec![new.kid()], 7));
        assert_eq!(until, NOW.unix_seconds() + 24 * 3600);
        assert!(verify(&new.sign(&claims()), &pinned.with(&learnt), &door("front"), NOW, LEEWAY).is_ok());
        assert!(verify(&old.sign(&claims()), &pinned.with(&learnt), &door("front"), NOW, LEEWAY).is_ok());
    }

    #[test]
    fn the_endorsement_with_the_highest_number_says_which_keys_are_learnt() {
        let (old, new) = (rfc_key(), GrantKey::generate().unwrap());
        let (alone, both) = (KeySet::new([old.public()]), KeySet::new([new.public(), old.public()]));
        let (device, day) = (DeviceId::new("gate").unwrap(), Duration::from_secs(24 * 3600));
        let learn = |words: &[&String]| {
            let published = both.published(words.iter().map(|word| (*word).clone()).collect());
            let learnt = alone.learn(&published, &device, NOW, LEEWAY).unwrap().unwrap();
            (learnt.serial, learnt.keys.kids().map(str::to_owned).collect::<Vec<_>>())
        };
        let with = old.endorse(&both, &device, NOW, day, 5);
        let without = old.endorse(&alone, &device, NOW, day, 6);
        let before = old.endorse_unnumbered(&both, &device, NOW, day);
        let new_kid = || vec![new.kid().to_owned()];
        assert_eq!(learn(&[&with, &before]), (5, new_kid()));
        for words in [[&with, &without], [&without, &with], [&without, &before], [&before, &without]] {
            assert_eq!(learn(&words), (6, vec![]), "it is taken back, in whatever order they stand");
        }
        assert_eq!(learn(&[&before]), (0, new_kid()), "a device of before numbers nothing");
        // A number where none may be, and none where one must be: signed, and not ours.
        for (typ, serial) in [(ENDORSEMENT, None), (ENDORSEMENT, Some(0)), (ENDORSEMENT_1, Some(9))] {
            let word = old.endorse_as(typ, &both, &device, (NOW, day), serial);
            assert!(alone.learn(&both.published(vec![word]), &device, NOW, LEEWAY).is_err(), "{typ} {serial:?}");
        }
    }

    #[test]
    fn a_grant_survives_the_way_through_text_and_key_set() {
        let (key, next) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let keys = KeySet::from_jwk_set(&KeySet::new([key.public(), next.public()]).to_jwk_set()).unwrap();
        for signer in [&key, &next] {
            assert_eq!(verify(&signer.sign(&claims()), &keys, &door("front"), NOW, LEEWAY).unwrap(), claims());
        }
        assert_eq!(format!("{key:?}"), format!("GrantKey({})", key.kid()));
    }

    proptest! {
        #[test]
        fn no_input_panics(token in "\\PC{0,200}", header in "\\PC{0,60}", payload in "\\PC{0,60}") {
            let key = rfc_key();
            prop_assert!(check(&token, &key).is_err());
            prop_assert!(check(&key.sign_parts(&header, &payload), &key).is_err());
            prop_assert!(KeySet::from_jwk_set(&token).is_err());
        }
    }
}
