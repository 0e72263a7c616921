//! What doors say became of grants: what makes it believable. Pure but for the memory of used ids.
//!
//! A passage is plain JSON on `door/<door>/passage`, for people; what counts in it is its `claim`, a compact JWS (`typ`
//! `faceid-passage+jwt`, EdDSA) by the door's own key, one of those that the config pins for this door. It names its door, the device, the
//! grant, when it was said and until when it holds, and an id that is taken once. A retained, late, early, repeated, unsigned or foreign
//! one changes nothing: the grant goes on counting as a passage, which is the safe side of anti-passback.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::subscribe::Received;
use crate::access::grant::{self, GrantError, KeySet, PASSAGE_LIFETIME_S, PassageClaim};
use crate::system::seen::{Kind, Seen, SeenError, Terms};
use crate::types::{DeviceId, DoorId, Moment, Wall};

/// How far a door's clock may differ.
const LEEWAY: Duration = Duration::from_secs(5);
/// The longest message that is looked at, in bytes; ours have about 900.
const MAX_BYTES: usize = 8 * 1024;

/// Why a passage changes nothing.
#[derive(Debug, Error)]
pub enum PassageRefusal {
    /// The broker kept it: it would come again at every connection.
    #[error("it was retained by the broker")]
    Retained,
    /// No key is pinned for this door.
    #[error("no key is pinned for this door: set `controller-keys` of [[doors]]")]
    NoKeys,
    /// Not signed by the door, or not at all.
    #[error("it is not signed by the door's controller: {0}")]
    Unsigned(GrantError),
    /// Said of another door, or to another device.
    #[error("it is of another door or for another device")]
    Misdirected,
    /// Its end is over, its beginning to come, or its life too long.
    #[error("its time is over or has not come, or it lives longer than {PASSAGE_LIFETIME_S} s")]
    Untimely,
    /// It was told before.
    #[error("its id: {0}")]
    Replayed(#[from] SeenError),
}

/// The one member that counts.
#[derive(Deserialize)]
struct Told {
    claim: String,
}

/// Tells what a door's controller signed from what nobody did. Whether it was said before is [`Passages`]' to say.
#[derive(Debug, Clone)]
pub struct PassageJudge {
    device: DeviceId,
    keys: BTreeMap<DoorId, KeySet>,
}

fn leeway_s() -> i64 {
    i64::try_from(LEEWAY.as_secs()).unwrap_or(0)
}

impl PassageJudge {
    /// A message on `door/<door>/passage`, believed but for its id.
    pub fn check(&self, door: &DoorId, message: &Received, now: Wall) -> Result<PassageClaim, PassageRefusal> {
        let malformed = |why| PassageRefusal::Unsigned(GrantError::Malformed(why));
        if message.retained {
            return Err(PassageRefusal::Retained);
        }
        let keys = self.keys.get(door).ok_or(PassageRefusal::NoKeys)?;
        if message.payload.len() > MAX_BYTES {
            return Err(malformed("it is too long"));
        }
        let Told { claim } = serde_json::from_slice(&message.payload).map_err(|_| malformed("it has no claim"))?;
        let claim = grant::open_passage(&claim, keys).map_err(PassageRefusal::Unsigned)?;
        if claim.iss != *door || claim.aud != self.device {
            return Err(PassageRefusal::Misdirected);
        }
        let leeway = leeway_s();
        let seconds = now.unix_seconds();
        let lifetime = claim.exp.checked_sub(claim.iat).ok_or(PassageRefusal::Untimely)?;
        let is_timely = claim.iat <= seconds.saturating_add(leeway) && seconds < claim.exp.saturating_add(leeway);
        if !is_timely || !(1..=PASSAGE_LIFETIME_S).contains(&lifetime) {
            return Err(PassageRefusal::Untimely);
        }
        Ok(claim)
    }
}

/// Believes passages or refuses them.
pub struct Passages {
    judge: PassageJudge,
    seen: Seen,
    /// What was signed by this second counts as used, at any door and at each.
    used_until: i64,
    used_at: BTreeMap<DoorId, i64>,
}

impl Passages {
    /// For this device, with the keys of each door's controller. `memory` is the file of used ids, and whether this is the device's very
    /// first start: see [`Seen`] for what becomes of one that is lost.
    pub fn new(device: DeviceId, keys: BTreeMap<DoorId, KeySet>, memory: (&Path, bool), now: Moment) -> Result<Self, SeenError> {
        let (path, is_new) = memory;
        let owner = format!("{device}/passages");
        let seen = Seen::open(path, Terms { owner: &owner, kind: Kind::Messages, is_new, leeway: LEEWAY }, now)?;
        Ok(Self { judge: PassageJudge { device, keys }, seen, used_until: i64::MIN, used_at: BTreeMap::new() })
    }

    /// What it believes passages by.
    pub fn judge(&self) -> &PassageJudge {
        &self.judge
    }

    /// Takes a look at the clocks, often: see [`Seen::look`].
    pub fn look(&mut self, now: Moment, is_synced: bool) {
        self.seen.look(now, is_synced);
    }

    /// The end of the program: see [`Seen::keep`].
    pub fn keep(&mut self) {
        self.seen.keep();
    }

    /// A witness says until which second what was used before this start had been signed, at each door: none of that is believed, whatever
    /// the memory of used ids says. That file may be an older copy, or somebody else's work.
    pub fn refuse_until(&mut self, used_at: BTreeMap<DoorId, i64>) {
        self.used_at = used_at;
    }

    /// The same where nobody can say what was used: nothing that was signed before `now` is believed.
    pub fn refuse_before(&mut self, now: Wall) {
        self.used_until = self.used_until.max(now.unix_seconds().saturating_sub(1));
    }

    /// A message on `door/<door>/passage`. Its id is durable as used before this returns it.
    pub fn admit(&mut self, door: &DoorId, message: &Received, now: Wall) -> Result<PassageClaim, PassageRefusal> {
        let claim = self.judge.check(door, message, now)?;
        if claim.iat <= self.used_at.get(door).map_or(self.used_until, |until| self.used_until.max(*until)) {
            return Err(SeenError::UsedBefore.into());
        }
        self.seen.take(&claim.jti, claim.iat, claim.exp.saturating_add(leeway_s()), now)?;
        Ok(claim)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::grant::GrantKey;

    const NOW: Wall = Wall(1_700_000_000_000);

    struct Scene {
        front: GrantKey,
        back: GrantKey,
        passages: Passages,
        folder: tempfile::TempDir,
    }

    fn door(id: &str) -> DoorId {
        DoorId::new(id).unwrap()
    }

    fn open(front: &GrantKey, back: &GrantKey, folder: &Path, is_new: bool) -> Passages {
        let keys = [("front", front), ("back", back)].map(|(id, key)| (door(id), KeySet::new([key.public()])));
        let now = Moment { wall: NOW, ..Moment::default() };
        Passages::new(DeviceId::new("gate").unwrap(), keys.into(), (&folder.join("passages"), is_new), now).unwrap()
    }

    fn scene() -> Scene {
        let (front, back) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let passages = open(&front, &back, folder.path(), true);
        Scene { front, back, passages, folder }
    }

    fn claim(jti: &str) -> PassageClaim {
        let iat = NOW.unix_seconds();
        PassageClaim {
            iss: door("front"),
            aud: DeviceId::new("gate").unwrap(),
            iat,
            exp: iat + 60,
            jti: jti.to_owned(),
            grant: "g1".to_owned(),
            passed: true,
        }
    }

    fn message(token: &str) -> Received {
        let payload = serde_json::json!({ "passed": false, "claim": token }).to_string();
        Received { topic: "faceid/gate/door/front/passage".into(), payload: payload.into_bytes(), ..Received::default() }
    }

    impl Scene {
        fn admit(&mut self, claim: &PassageClaim) -> Result<PassageClaim, PassageRefusal> {
            let token = self.front.sign_passage(claim);
            self.passages.admit(&door("front"), &message(&token), NOW)
        }
    }

    #[test]
    fn what_the_door_did_not_sign_is_refused() {
        let mut scene = scene();
        let front = door("front");
        let text = |payload: &str| Received { payload: payload.as_bytes().to_vec(), ..Received::default() };
        let long = format!("{{\"claim\":\"{}\"}}", "a".repeat(MAX_BYTES));
        for payload in ["", "{}", "[]", r#"{"jti":"g1","passed":false}"#, r#"{"claim":7}"#, r#"{"claim":"a.b.c"}"#, &long] {
            let refused = scene.passages.admit(&front, &text(payload), NOW);
            assert!(matches!(refused, Err(PassageRefusal::Unsigned(GrantError::Malformed(_)))), "{payload}");
        }
        let thief = GrantKey::generate().unwrap();
        for foreign in [&thief, &scene.back] {
            let refused = scene.passages.admit(&front, &message(&foreign.sign_passage(&claim("a"))), NOW);
            assert!(matches!(refused, Err(PassageRefusal::Unsigned(GrantError::UnknownKey))));
        }
        let unpinned = scene.passages.admit(&door("side"), &message(&scene.front.sign_passage(&claim("a"))), NOW);
        assert!(matches!(unpinned, Err(PassageRefusal::NoKeys)));
        let command = scene.front.sign_command(&serde_json::to_string(&claim("a")).unwrap());
        let refused = scene.passages.admit(&front, &message(&command), NOW);
        assert!(matches!(refused, Err(PassageRefusal::Unsigned(GrantError::Malformed(_)))));
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let mut scene = scene();
        let token = scene.front.sign_passage(&claim("a"));
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            if altered != token {
                assert!(scene.passages.admit(&door("front"), &message(&altered), NOW).is_err(), "{at}");
            }
        }
        assert!(scene.admit(&claim("a")).is_ok(), "none of them has used the id up");
    }

    #[test]
    fn another_doors_another_devices_a_retained_and_an_untimely_one_change_nothing() {
        let mut scene = scene();
        let good = claim("a");
        let retained = Received { retained: true, ..message(&scene.front.sign_passage(&good)) };
        assert!(matches!(scene.passages.admit(&door("front"), &retained, NOW), Err(PassageRefusal::Retained)));
        // The front door's key speaks for the front door only, on whatever topic, and the back door's for no other.
        let of_back = PassageClaim { iss: door("back"), ..good.clone() };
        assert!(matches!(scene.admit(&of_back), Err(PassageRefusal::Misdirected)));
        let by_back = message(&scene.back.sign_passage(&good));
        assert!(matches!(scene.passages.admit(&door("back"), &by_back, NOW), Err(PassageRefusal::Misdirected)));
        let elsewhere = PassageClaim { aud: DeviceId::new("other").unwrap(), ..good.clone() };
        assert!(matches!(scene.admit(&elsewhere), Err(PassageRefusal::Misdirected)));
        let now = NOW.unix_seconds();
        for (iat, exp) in [
            (now - 60, now - 5),
            (now + 6, now + 60),
            (now, now + PASSAGE_LIFETIME_S + 1),
            (now, now),
            (now, now - 1),
            (i64::MIN, i64::MAX),
        ] {
            assert!(
                matches!(scene.admit(&PassageClaim { iat, exp, ..good.clone() }), Err(PassageRefusal::Untimely)),
                "{iat} {exp}"
            );
        }
        assert_eq!(scene.admit(&good).unwrap(), good, "none of them has used the id up");
    }

    #[test]
    fn what_the_witness_says_was_used_at_a_door_is_not_believed_there_and_elsewhere_it_is() {
        let mut scene = scene();
        let path = scene.folder.path().join("passages");
        let older = std::fs::read(&path).unwrap();
        let used = claim("used");
        assert!(scene.admit(&used).is_ok());
        std::fs::write(&path, older).unwrap();
        scene.passages = open(&scene.front, &scene.back, scene.folder.path(), false);
        scene.passages.refuse_until([(door("front"), used.iat)].into());
        let again = scene.admit(&used);
        assert!(matches!(again, Err(PassageRefusal::Replayed(SeenError::UsedBefore))), "{again:?}");
        // What waited for this start is believed, and so is another door's, whose clock is its own.
        assert!(scene.admit(&PassageClaim { iat: used.iat + 1, ..claim("waited") }).is_ok());
        let of_back = PassageClaim { iss: door("back"), ..claim("other") };
        assert!(scene.passages.admit(&door("back"), &message(&scene.back.sign_passage(&of_back)), NOW).is_ok());
        scene.passages.refuse_before(NOW);
        let before = scene.admit(&PassageClaim { iat: NOW.unix_seconds() - 1, exp: NOW.unix_seconds() + 9, ..claim("b") });
        assert!(matches!(before, Err(PassageRefusal::Replayed(SeenError::UsedBefore))), "{before:?}");
    }

    #[test]
    fn a_passage_is_taken_once_and_over_a_restart_too() {
        let mut scene = scene();
        assert_eq!(scene.admit(&claim("a")).unwrap(), claim("a"));
        assert!(matches!(scene.admit(&claim("a")), Err(PassageRefusal::Replayed(SeenError::Again))));
        scene.passages = open(&scene.front, &scene.back, scene.folder.path(), false);
        assert!(matches!(scene.admit(&claim("a")), Err(PassageRefusal::Replayed(SeenError::Again))));
        // Nor over a memory that was wiped.
        std::fs::remove_file(scene.folder.path().join("passages")).unwrap();
        scene.passages = open(&scene.front, &scene.back, scene.folder.path(), false);
        assert!(matches!(scene.admit(&claim("a")), Err(PassageRefusal::Replayed(SeenError::TooEarly))));
    }

    proptest! {
        #[test]
        fn no_input_panics(payload in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
            thread_local! { static SCENE: std::cell::RefCell<Scene> = std::cell::RefCell::new(scene()); }
            SCENE.with_borrow_mut(|scene| {
                let raw = Received { payload, ..Received::default() };
                prop_assert!(scene.passages.admit(&door("front"), &raw, NOW).is_err());
                prop_assert!(scene.passages.admit(&door("front"), &message(&text), NOW).is_err());
                Ok(())
            })?;
        }
    }
}
