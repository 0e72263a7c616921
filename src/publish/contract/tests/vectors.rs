//! Test vectors of grants: what a controller takes, and what it refuses and why.

use std::time::Duration;

use serde_json::{Value, json};

use crate::access::grant::{GrantKey, KeySet};
use crate::types::{DeviceId, Wall};

/// The second in which the grants of the vectors were signed.
const SIGNED: i64 = 1_700_000_000;

/// A case: its name, what must come of it, the token, and what is unlike the others.
type Case = (&'static str, &'static str, String, Value);

/// Keys for these vectors alone: their seeds are published with this file.
fn key(seed: u8) -> GrantKey {
    GrantKey::from_seed(&[seed; 32]).unwrap()
}

fn header(key: &GrantKey) -> Value {
    json!({"alg": "EdDSA", "kid": key.kid(), "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": "gate", "aud": "front", "sub": "p0", "iat": SIGNED, "nbf": SIGNED, "exp": SIGNED + 5, "jti": "j1"})
}

/// `base` with other members; a null takes one away.
fn with(mut base: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}

fn cases(device: &GrantKey, next: &GrantKey, stranger: &GrantKey) -> Vec<Case> {
    let sign = |header: &Value, claims: &Value| device.sign_raw(&header.to_string(), &claims.to_string());
    let claiming = |more: Value| sign(&header(device), &with(claims(), &more));
    let headed = |more: Value| sign(&with(header(device), &more), &claims());
    let good = sign(&header(device), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let altered = format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let other_claims = {
        let other = claiming(json!({"sub": "p1"}));
        let (signed, _) = other.rsplit_once('.').unwrap();
        format!("{signed}.{signature}")
    };
    let unsigned = format!("{signed}.");
    let short = signed.to_owned();
    let of_next = next.sign_raw(&header(next).to_string(), &claims().to_string());
    let foreign = stranger.sign_raw(&header(stranger).to_string(), &claims().to_string());
    let impostor = stranger.sign_raw(&header(device).to_string(), &claims().to_string());
    let both = KeySet::new([device.public(), next.public()]);
    let gate = DeviceId::new("gate").unwrap();
    let word = device.endorse(&both, &gate, Wall(SIGNED * 1000), Duration::from_secs(60), 1);
    let published = json!({"published": both.published(vec![word])});
    let hold = json!({"typ": "faceid-hold+jwt"});
    let holding = |seconds: u32| sign(&with(header(device), &hold), &with(claims(), &json!({"hold_s": seconds})));
    let nothing = || json!({});
    let at = |offset: i64| json!({"now": SIGNED + offset});
    vec![
        ("as it comes", "accept", good.clone(), nothing()),
        ("in its last second", "accept", good.clone(), at(4)),
        ("ended, within the leeway", "accept", good.clone(), at(6)),
        ("the device's clock is ahead, within the leeway", "accept", good.clone(), at(-2)),
        ("without typ, which is optional", "accept", headed(json!({"typ": null})), nothing()),
        ("the longest life that is believed", "accept", claiming(json!({"exp": SIGNED + 300})), nothing()),
        ("signed by a key that a pinned key endorses, at a controller that reads `keys`", "accept", of_next.clone(), published),
        ("holds the door open, at a controller that knows holds", "accept", holding(30), json!({"hold": true})),
        ("holds the door open for too long at once", "lifetime", holding(31), json!({"hold": true})),
        ("a hold under a grant's type", "malformed", claiming(json!({"hold_s": 5})), nothing()),
        ("signed by a key that nobody has endorsed", "unknown-key", of_next, nothing()),
        ("ended, by more than the leeway", "expired", good.clone(), at(7)),
        ("the device's clock is ahead by more than the leeway", "not-yet", good.clone(), at(-3)),
        ("not valid yet although it is signed", "not-yet", claiming(json!({"nbf": SIGNED + 3})), nothing()),
        ("lives for too long", "lifetime", claiming(json!({"exp": SIGNED + 301})), nothing()),
        ("lives for too long before it is valid", "lifetime", claiming(json!({"iat": SIGNED - 299})), nothing()),
        ("ends before it begins", "lifetime", claiming(json!({"exp": SIGNED - 1})), nothing()),
        ("for another door", "audience", claiming(json!({"aud": "back"})), nothing()),
        ("of another device", "issuer", claiming(json!({"iss": "yard"})), nothing()),
        ("taken before", "used", good.clone(), json!({"taken": ["j1"]})),
        ("another one was taken before", "accept", good.clone(), json!({"taken": ["j0"]})),
        ("kept by the broker", "retained", good, json!({"retained": true})),
        ("another signature", "signature", altered, nothing()),
        ("other claims under its signature", "signature", other_claims, nothing()),
        ("a stranger's signature under the device's kid", "signature", impostor, nothing()),
        ("a stranger's key", "unknown-key", foreign, nothing()),
        ("no signature", "signature", unsigned, nothing()),
        ("two parts", "malformed", short, nothing()),
        ("no algorithm", "algorithm", headed(json!({"alg": "none"})), nothing()),
        ("another algorithm", "algorithm", headed(json!({"alg": "HS256"})), nothing()),
        ("a command's typ", "malformed", headed(json!({"typ": "faceid-command+jwt"})), nothing()),
        ("a passage's typ", "malformed", headed(json!({"typ": "faceid-passage+jwt"})), nothing()),
        ("brings its own key", "malformed", headed(json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}})), nothing()),
        ("critical members", "malformed", headed(json!({"crit": ["exp"]})), nothing()),
        ("a list of doors", "malformed", claiming(json!({"aud": ["front"]})), nothing()),
        ("no end", "malformed", claiming(json!({"exp": null})), nothing()),
        ("no id", "malformed", claiming(json!({"jti": null})), nothing()),
        ("an id with other characters", "malformed", claiming(json!({"jti": "j 1"})), nothing()),
        ("an end with a fraction", "malformed", claiming(json!({"exp": 1_700_000_005.5})), nothing()),
        ("no token", "malformed", "header.claims.signature".to_owned(), nothing()),
    ]
}

pub(super) fn document() -> Value {
    let (device, next, stranger) = (key(1), key(2), key(3));
    let pinned: Value = serde_json::from_str(&KeySet::new([device.public()]).to_jwk_set()).unwrap();
    let cases = cases(&device, &next, &stranger).into_iter().map(|(name, expect, token, more)| {
        let case = json!({"name": name, "expect": expect, "now": SIGNED, "token": token});
        with(case, &more)
    });
    json!({
        "about": "A controller of door `door` that pins `pinned` gets each token in a decision, when its clock says `now` (seconds since 1970), and \
            must do what `expect` says: `accept`, or refuse for that reason (README.md, \"Grants\"). `taken`: ids that it took before; `retained`: the \
            broker's flag; `published`: what is on the `keys` topic, for controllers that learn; `hold`: it \
            comes on the topic `hold`, for controllers that know it. The keys are for these vectors alone: their seeds \
            are 32 bytes of 01, 02 and 03.",
        "device": "gate", "door": "front", "leeway_s": 2, "pinned": pinned, "cases": cases.collect::<Vec<_>>(),
    })
}
