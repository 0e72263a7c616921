//! Grants and keys against an implementation that is not ours: PyJWT on the `cryptography` package, in a virtual environment that the
//! test makes. It must take our grants and refuse what we refuse, and ours must refuse what is not exactly our form.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use faceid_plus::access::grant::{self, GrantKey, KeySet};
use faceid_plus::system::clock;
use faceid_plus::types::DoorId;

/// Verifies as a controller in Python would: the key by its `kid` from the published set, then PyJWT's own checks.
const VERIFY: &str = r#"
import json, sys, jwt
keys, token, door = sys.argv[1:]
header = jwt.get_unverified_header(token)
key = next(k for k in jwt.PyJWKSet.from_dict(json.loads(keys)).keys if k.key_id == header["kid"])
print(json.dumps(jwt.decode(token, key.key, algorithms=["EdDSA"], audience=door, options={"require": ["exp", "iat", "nbf", "jti", "iss", "sub"]})))
"#;

/// Signs with a key of Python's own making: the seed as hexadecimal digits, and the claims.
const SIGN: &str = r#"
import json, sys, jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
seed, kid, claims = sys.argv[1:]
key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
print(jwt.encode(json.loads(claims), key, algorithm="EdDSA", headers={"kid": kid}))
"#;

/// A Python with PyJWT, or `None` after saying so loudly. `FACEID_PYTHON` names one that is there.
fn python() -> Option<PathBuf> {
    let ready = |python: &Path| {
        let check = Command::new(python).args(["-c", "import jwt, cryptography"]).output();
        check.is_ok_and(|output| output.status.success())
    };
    if let Some(python) = std::env::var_os("FACEID_PYTHON").map(PathBuf::from).filter(|python| ready(python)) {
        return Some(python);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pyjwt");
    let python = folder.join("bin/python3");
    if !ready(&python) {
        let _ = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
        let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "pyjwt==2.10.1", "cryptography"];
        let _ = Command::new(&python).args(install).output();
    }
    if ready(&python) {
        return Some(python);
    }
    println!("SKIPPED: PyJWT could not be installed: grants are not checked against an independent implementation");
    None
}

fn run(python: &Path, script: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn pyjwt_takes_our_grants_refuses_what_we_refuse_and_signs_what_we_take() {
    let Some(python) = python() else { return };
    let (key, next) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
    let both = KeySet::new([next.public(), key.public()]);
    let words = vec![key.endorse(&both, &super::device(), clock::wall(), Duration::from_secs(60), 1)];
    let published = both.published(words);
    let claims = super::claims("front");
    let verify = |token: &str, door: &str| run(&python, VERIFY, &[&published, token, door]);

    let token = key.sign(&claims);
    let error = verify(&token, "back").unwrap_err();
    assert!(error.contains("InvalidAudienceError"), "{error}");
    let mut altered = token.clone().into_bytes();
    let at = token.rfind('.').unwrap() + 10;
    // Another letter of the alphabet, so that the form stays good.
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    let error = verify(&String::from_utf8(altered).unwrap(), "front").unwrap_err();
    assert!(error.contains("InvalidSignatureError"), "{error}");
    let late = grant::Claims { iat: claims.iat - 60, nbf: claims.nbf - 60, exp: claims.iat - 10, ..claims.clone() };
    let error = verify(&key.sign(&late), "front").unwrap_err();
    assert!(error.contains("ExpiredSignatureError"), "{error}");
    for signer in [&key, &next] {
        let seen: grant::Claims = serde_json::from_str(&verify(&signer.sign(&claims), "front").unwrap()).unwrap();
        assert_eq!(seen, claims);
    }

    let seed: String = key.seed().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = serde_json::to_string(&claims).unwrap();
    let theirs = run(&python, SIGN, &[&seed, key.kid(), &text]).unwrap();
    let door = DoorId::new("front").unwrap();
    let taken = grant::verify(&theirs, &KeySet::new([key.public()]), &door, clock::wall(), Duration::from_secs(2));
    assert_eq!(taken, Ok(claims), "the same claims under the same key");
}
