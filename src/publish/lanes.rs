//! Between the connection and whoever obeys: a lane for each kind of message, so that nobody's noise keeps an operator out.
//!
//! What an operator or a door's controller signed is told from the rest before anything waits in a line: it has lanes of its own, which
//! only who holds a key can fill, and a copy of what is there already goes with the rest. What anybody may say (a card, a ping, words
//! that nobody signed) has a budget a topic kind, and cards one a door; what is beyond the budget, or finds its lane full, is dropped,
//! counted and told of with a bound. Lock-downs and releases are read first, in their order.
//!
//! At QoS 1 the broker has its confirmation before a message comes here, because the client confirms what it has read: with clean
//! sessions one that is not confirmed would not come again either, and who floods could have the broker hold up what an operator says.
//! So a confirmation says nothing; the answer on `cmd/<verb>/reply` is what an operator waits for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::command::{Judge, Refusal, Verb};
use super::passage::{PassageJudge, PassageRefusal};
use super::subscribe::Received;
use crate::system::Quota;
use crate::types::{DoorId, Moment, Monotonic};

/// The longest payload that anything is done with, in bytes; of a longer one the rest is cut off, and it is refused as one that is too long.
const MOST_BYTES: usize = 16 * 1024;
/// Nonces of signed messages that were let in. Only who holds a key adds to them.
const REMEMBERED: usize = 1024;
/// Messages whose signature was looked at. To look once more would say the same and cost fifty times as much as to know it again.
const JUDGED: usize = 4096;

/// A kind of message. They are read in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Signed lock-downs and releases.
    Order,
    /// Other signed commands.
    Command,
    /// Passages that their door has signed.
    Passage,
    /// What readers read.
    Credential,
    /// Pings, which need no signature.
    Ping,
    /// What nobody signed, or what came before.
    Other,
}

impl Lane {
    /// Each with its word in metrics and logs.
    pub const ALL: [(Lane, &'static str); LANES] = [
        (Lane::Order, "order"),
        (Lane::Command, "command"),
        (Lane::Passage, "passage"),
        (Lane::Credential, "credential"),
        (Lane::Ping, "ping"),
        (Lane::Other, "unsigned"),
    ];

    /// How many wait at most.
    fn room(self) -> usize {
        match self {
            Lane::Order | Lane::Command | Lane::Passage => 64,
            Lane::Credential | Lane::Ping | Lane::Other => 16,
        }
    }

    /// How many may come at once, and how many a second; `None` where a signature is the bound. More than any reader, button or
    /// mistaken client has, and less than costs anything.
    fn budget(self) -> Option<(f64, f64)> {
        match self {
            Lane::Order | Lane::Command | Lane::Passage => None,
            Lane::Credential => Some((16.0, 4.0)),
            Lane::Ping => Some((8.0, 2.0)),
            Lane::Other => Some((40.0, 5.0)),
        }
    }

    fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

const LANES: usize = 6;

/// How many messages of each kind were dropped.
#[derive(Debug, Default)]
pub struct Dropped([AtomicU64; LANES]);

impl Dropped {
    /// The kinds' words and numbers.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Lane::ALL.iter().zip(&self.0).map(|((_, word), count)| (*word, count.load(Ordering::Relaxed)))
    }
}

struct Budget {
    left: f64,
    at: Monotonic,
}

#[derive(Default)]
struct Lines {
    waiting: [VecDeque<Received>; LANES],
    is_closed: bool,
}

#[derive(Default)]
struct Between {
    lines: Mutex<Lines>,
    news: Condvar,
}

impl Between {
    // A thread that panicked in here left the lines whole: nothing is between its steps.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's end: takes what comes, and never waits.
pub struct Lanes {
    root: String,
    doors: HashSet<DoorId>,
    commands: Judge,
    passages: PassageJudge,
    /// By whose nonce or id it is, and until when.
    known: HashMap<(Option<DoorId>, String), i64>,
    /// By topic and payload under a key of this run, so that nobody can make two of one hash.
    judged: HashSet<u64>,
    hash: RandomState,
    budgets: HashMap<(Lane, Option<DoorId>), Budget>,
    between: Arc<Between>,
    dropped: Arc<Dropped>,
    told: Quota,
}

/// The reader's end.
pub struct Inlet(Arc<Between>);

/// Both ends of the lanes of the device whose topics begin with `root`.
pub fn lanes(root: &str, doors: impl IntoIterator<Item = DoorId>, commands: Judge, passages: PassageJudge) -> (Lanes, Inlet) {
    let between = Arc::<Between>::default();
    let lanes = Lanes {
        root: root.to_owned(),
        doors: doors.into_iter().collect(),
        commands,
        passages,
        known: HashMap::new(),
        judged: HashSet::new(),
        hash: RandomState::new(),
        budgets: HashMap::new(),
        between: between.clone(),
        dropped: Arc::default(),
        told: Quota::default(),
    };
    (lanes, Inlet(between))
}

impl Lanes {
    /// What was dropped so far.
    pub fn dropped(&self) -> Arc<Dropped> {
        self.dropped.clone()
    }

    /// Puts a message into its lane, or drops it; false when it was dropped.
    pub fn take(&mut self, mut message: Received, now: Moment) -> bool {
        message.payload.truncate(MOST_BYTES + 1);
        message.payload.shrink_to_fit();
        let (lane, door) = self.sort(&message, now);
        if self.may(lane, door, now.monotonic) && self.put(lane, message) {
            return true;
        }
        self.dropped.0[lane as usize].fetch_add(1, Ordering::Relaxed);
        self.tell(now.monotonic);
        if self.told.is_listed(now.monotonic) {
            log::warn!(kind = lane.word(); "a message from the broker was dropped: too many come");
        }
        false
    }

    /// Says how many more were dropped than were told of. To be called often.
    pub fn tell(&mut self, now: Monotonic) {
        if let Some(unlisted) = self.told.unlisted(now) {
            log::warn!("{unlisted} more messages from the broker were dropped: too many came");
        }
    }

    fn sort(&mut self, message: &Received, now: Moment) -> (Lane, Option<DoorId>) {
        let Some(below) = message.topic.strip_prefix(&self.root).and_then(|below| below.strip_prefix('/')) else {
            return (Lane::Other, None);
        };
        if let Some(word) = below.strip_prefix("cmd/") {
            if word == Verb::Ping.as_str() && message.payload == b"ping" {
                return (Lane::Ping, None);
            }
            let hash = self.hash_of(message);
            if self.judged.contains(&hash) {
                return (Lane::Other, None);
            }
            let judged = self.commands.check(word, message, now.wall);
            if matches!(judged, Ok(_) | Err(Refusal::Unsigned(_))) {
                self.remember(hash);
            }
            return match judged {
                Ok(command) if self.is_new(None, command.nonce.clone(), command.expires_at, now) => match command.verb {
                    Verb::Lockdown | Verb::Release => (Lane::Order, None),
                    _ => (Lane::Command, None),
                },
                _ => (Lane::Other, None),
            };
        }
        let of_door = below.strip_prefix("door/").and_then(|rest| rest.split_once('/'));
        let Some((door, what)) = of_door.and_then(|(door, what)| Some((DoorId::new(door).ok()?, what))) else {
            return (Lane::Other, None);
        };
        match what {
            "credential" if self.doors.contains(&door) => (Lane::Credential, Some(door)),
            "passage" => {
                let hash = self.hash_of(message);
                if self.judged.contains(&hash) {
                    return (Lane::Other, None);
                }
                let judged = self.passages.check(&door, message, now.wall);
                if matches!(judged, Ok(_) | Err(PassageRefusal::Unsigned(_))) {
                    self.remember(hash);
                }
                match judged {
                    Ok(claim) if self.is_new(Some(door), claim.jti.clone(), claim.exp, now) => (Lane::Passage, None),
                    _ => (Lane::Other, None),
                }
            }
            _ => (Lane::Other, None),
        }
    }

    fn hash_of(&self, message: &Received) -> u64 {
        self.hash.hash_one((&message.topic, &message.payload))
    }

    fn remember(&mut self, hash: u64) {
        if self.judged.len() >= JUDGED {
            self.judged.clear();
        }
        self.judged.insert(hash);
    }

    /// Whether a signed message was not let in before: who copies one must not fill the lane of those who sign.
    fn is_new(&mut self, door: Option<DoorId>, id: String, until: i64, now: Moment) -> bool {
        if self.known.len() >= REMEMBERED {
            let seconds = now.wall.unix_seconds();
            self.known.retain(|_, until| *until >= seconds);
        }
        // More than a thousand in their short lives: their signers flood themselves.
        self.known.len() < REMEMBERED && self.known.insert((door, id), until).is_none()
    }

    fn may(&mut self, lane: Lane, door: Option<DoorId>, now: Monotonic) -> bool {
        let Some((most, rate)) = lane.budget() else { return true };
        let budget = self.budgets.entry((lane, door)).or_insert(Budget { left: most, at: now });
        budget.left = (budget.left + now.since(budget.at).as_secs_f64() * rate).min(most);
        budget.at = now;
        let may = budget.left >= 1.0;
        if may {
            budget.left -= 1.0;
        }
        may
    }

    fn put(&self, lane: Lane, message: Received) -> bool {
        let mut lines = self.between.lines();
        let line = &mut lines.waiting[lane as usize];
        let has_room = line.len() < lane.room();
        if has_room {
            line.push_back(message);
            self.between.news.notify_one();
        }
        has_room
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.between.lines().is_closed = true;
        self.between.news.notify_all();
    }
}

impl Inlet {
    /// The next message of the first lane that has one, waiting for at most `wait`.
    pub fn recv_timeout(&self, wait: Duration) -> Result<Received, RecvTimeoutError> {
        let until = Instant::now() + wait;
        let mut lines = self.0.lines();
        loop {
            if let Some(message) = lines.waiting.iter_mut().find_map(VecDeque::pop_front) {
                return Ok(message);
            }
            if lines.is_closed {
                return Err(RecvTimeoutError::Disconnected);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            lines = self.0.news.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::passage::Passages;
    use super::*;
    use crate::access::grant::{GrantKey, KeySet, PassageClaim};
    use crate::types::{DeviceId, Wall};

    struct Scene {
        key: GrantKey,
        lanes: Lanes,
        inlet: Inlet,
        now: Moment,
    }

    fn device() -> DeviceId {
        DeviceId::new("gate").unwrap()
    }

    fn door(id: &str) -> DoorId {
        DoorId::new(id).unwrap()
    }

    fn scene() -> Scene {
        let key = GrantKey::generate().unwrap();
        let keys = KeySet::new([key.public()]);
        let folder = tempfile::tempdir().unwrap();
        let pinned = [("front", keys.clone()), ("back", keys.clone())].map(|(id, keys)| (door(id), keys));
        let now = Moment { wall: Wall(1_700_000_000_000), monotonic: Monotonic(1) };
        let passages = Passages::new(device(), pinned.into(), (&folder.path().join("passages"), true), now).unwrap();
        let doors = [door("front"), door("back")];
        let (lanes, inlet) = lanes("faceid/gate", doors, Judge::new(device(), Some(keys)), passages.judge().clone());
        Scene { key, lanes, inlet, now }
    }

    impl Scene {
        fn signed(&self, verb: Verb, nonce: &str) -> Received {
            let issued_at = self.now.wall.unix_seconds();
            let (nonce, args) = (nonce.to_owned(), serde_json::Value::Null);
            let command =
                Command { device: device(), verb, issued_at, expires_at: issued_at + 60, nonce, args, operator: String::new() };
            said(&format!("cmd/{}", verb.as_str()), command.sign(&self.key).as_bytes())
        }

        fn passed(&self, id: &str) -> Received {
            let iat = self.now.wall.unix_seconds();
            let claim = PassageClaim {
                iss: door("front"),
                aud: device(),
                iat,
                exp: iat + 60,
                jti: id.into(),
                grant: "g".into(),
                passed: true,
            };
            let payload = serde_json::json!({ "claim": self.key.sign_passage(&claim) }).to_string();
            said("door/front/passage", payload.as_bytes())
        }

        fn take(&mut self, message: &Received) -> bool {
            self.lanes.take(message.clone(), self.now)
        }

        fn take_or_not(&mut self, message: &Received) {
            self.take(message);
        }

        fn drain(&self) -> Vec<String> {
            std::iter::from_fn(|| self.inlet.recv_timeout(Duration::ZERO).ok()).map(|message| message.topic).collect()
        }

        fn dropped(&self, word: &str) -> u64 {
            self.lanes.dropped().counts().find(|(known, _)| *known == word).unwrap().1
        }
    }

    fn said(below: &str, payload: &[u8]) -> Received {
        Received { topic: format!("faceid/gate/{below}"), payload: payload.to_vec(), ..Received::default() }
    }

    #[test]
    fn no_flood_of_what_anybody_may_say_keeps_out_what_is_signed() {
        let card = br#"{"kind":"card","number":"4217"}"#;
        let copied = scene().signed(Verb::List, "a");
        let noise = [
            said("door/front/credential", card),
            said("door/other/credential", card),
            said("door/front/passage", b"{}"),
            said("door/front/passage", br#"{"claim":"a.b.c"}"#),
            said("cmd/ping", b"ping"),
            said("cmd/ping", b"PING"),
            said("cmd/lockdown", b"lockdown"),
            said("cmd/lockdown", &[b'x'; 100_000]),
            said("cmd/release", &copied.payload),
            said("", b""),
            Received { topic: "elsewhere".into(), ..Received::default() },
        ];
        for message in &noise {
            let mut scene = scene();
            let flood = |scene: &mut Scene| (0..1_000).for_each(|_| scene.take_or_not(message));
            flood(&mut scene);
            for n in 0..8 {
                let (order, other) = (scene.signed(Verb::Lockdown, &format!("l{n}")), scene.signed(Verb::List, &format!("o{n}")));
                let passed = scene.passed(&format!("p{n}"));
                assert!(scene.take(&other) && scene.take(&passed) && scene.take(&order), "{}", message.topic);
                flood(&mut scene);
            }
            let heard = scene.drain();
            let signed = &heard[..24];
            assert!(signed[..8].iter().all(|topic| topic.ends_with("/lockdown")), "they are read first: {signed:?}");
            assert!(signed[8..16].iter().all(|topic| topic.ends_with("/list")), "{signed:?}");
            assert!(signed[16..].iter().all(|topic| topic.ends_with("/passage")), "{signed:?}");
            assert!(heard.len() <= 24 + 16, "{} of the flood of {}", heard.len() - 24, message.topic);
        }
    }

    #[test]
    fn a_copy_of_a_signed_message_fills_no_lane_of_those_who_sign() {
        let mut scene = scene();
        let copied = [scene.signed(Verb::Lockdown, "a"), scene.signed(Verb::List, "b"), scene.passed("c")];
        for message in &copied {
            (0..5_000).for_each(|_| scene.take_or_not(message));
        }
        let fresh = [scene.signed(Verb::Lockdown, "d"), scene.signed(Verb::List, "e"), scene.passed("f")];
        assert!(fresh.iter().all(|message| scene.take(message)));
        assert_eq!(scene.drain().len(), 6 + 16);
        assert_eq!((scene.dropped("order"), scene.dropped("command"), scene.dropped("passage")), (0, 0, 0));
        assert_eq!(scene.dropped("unsigned"), 15_000 - 3 - 16, "each is counted");
    }

    #[test]
    fn a_lock_down_and_its_release_stay_in_their_order() {
        let mut scene = scene();
        for (verb, nonce) in [(Verb::Lockdown, "a"), (Verb::Release, "b"), (Verb::Lockdown, "c")] {
            let message = scene.signed(verb, nonce);
            assert!(scene.take(&message));
        }
        let order: Vec<_> = scene.drain().iter().map(|topic| topic.rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(order, ["lockdown", "release", "lockdown"]);
    }

    #[test]
    fn a_reader_has_its_budget_back_with_time_and_one_doors_flood_is_not_anothers() {
        let mut scene = scene();
        let card = |id: &str| said(&format!("door/{id}/credential"), b"{}");
        (0..1_000).for_each(|_| scene.take_or_not(&card("front")));
        assert_eq!((scene.drain().len(), scene.dropped("credential")), (16, 984));
        assert!(!scene.take(&card("front")) && scene.take(&card("back")));
        assert_eq!(scene.drain().len(), 1);
        scene.now = scene.now.plus(Duration::from_secs(1));
        let taken = (0..10).filter(|_| scene.take(&card("front"))).count();
        assert_eq!(taken, 4, "four a second");
        scene.now = scene.now.plus(Duration::from_secs(3600));
        scene.drain();
        let taken = (0..100).filter(|_| scene.take(&card("front"))).count();
        assert_eq!(taken, 16, "and no more than at once for an hour of silence");
    }

    #[test]
    fn who_reads_hears_that_nothing_more_comes() {
        let Scene { lanes, inlet, .. } = scene();
        assert_eq!(inlet.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        drop(lanes);
        assert_eq!(inlet.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    }
}
