//! Decides. Observations, inputs and time go in, decisions come out: no I/O, no clock, no thread, so that every rule can be tested by its
//! history. A grant is built in one place ([`Decider::grant`]), from a live, matched, fresh observation that every rule of the policy lets
//! through; nothing that failed can reach it.
//!
//! What asks what: [`Decider::decide`] judges an observation for each door of its camera ([`verdict`]) and waits for better evidence
//! while that can come; [`rules`] is the policy made ready, [`policy`] and [`schedule`] are how it is written, [`explain`] tells what it
//! would say. [`throttle`], [`tried`] and [`passback`] remember, [`charges`] says what a failure costs and [`barred`] what a block makes of
//! a verdict; what must outlive the process is a [`State`], which the decider's owner keeps. [`raised`] asks more of a match before one
//! camera, while its strangers come too near.

mod barred;
mod challenge;
mod charges;
mod desk;
mod doors;
pub mod explain;
pub mod grant;
mod input;
mod passback;
pub mod policy;
mod raised;
pub mod rules;
pub mod schedule;
mod settings;
mod shown;
mod state;
mod throttle;
mod tried;
mod verdict;
mod witness;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::types::{
    CameraId, Decision, DeviceId, DoorId, Factor, Mark, Moment, Observation, Outcome, PersonId, Profile, Prompt, Reason, Score,
    Side, TrackId,
};
use challenge::Pending;
pub use charges::Block;
use desk::Holds;
pub use desk::{DeskError, HOLD_S, HoldOrder, MAX_HOLD};
pub use doors::{ChallengeKind, DoorLiveness, DoorSettings, WitnessSettings};
use grant::{Claims, GrantKey};
use input::Waiting;
pub use input::{Command, Credential, CredentialRead, Input, InputError, Passage};
use passback::Passback;
pub use policy::{CredentialNumber, PolicySettings};
pub use rules::{Clock, Rules};
pub use settings::{Ambiguous, Basis, Settings, SiteThreshold, StrangerTarget, Thresholds};
pub use state::State;
use state::{Lockdown, Ms, ms};
use throttle::{Places, Throttle, Told};
use tried::TriedFaces;
use verdict::Verdict;
use witness::Witnesses;

#[cfg(test)]
use crate::types::PadScore;

/// The most tracks whose decision is remembered; older ones have long ended.
const REMEMBERED_TRACKS: usize = 4096;
/// The most approaches that are remembered; they last for seconds.
const REMEMBERED_APPROACHES: usize = 1024;

/// Turns observations into decisions: at most one for each track and door.
pub struct Decider {
    device: DeviceId,
    settings: Settings,
    thresholds: Thresholds,
    /// What a match needs at least before a camera whose strangers come too near, whatever its doors' own threshold.
    raised: HashMap<CameraId, Score>,
    rules: Rules,
    cameras: HashMap<CameraId, Vec<DoorId>>,
    doors: Vec<DoorId>,
    /// What each door asks for besides the pictures.
    liveness: HashMap<DoorId, DoorLiveness>,
    key: GrantKey,
    clock: Clock,
    decided: HashMap<(CameraId, TrackId), HashSet<DoorId>>,
    /// The same tracks, the longest decided first.
    in_order: VecDeque<(CameraId, TrackId)>,
    /// When a person was last let through a door.
    approaches: HashMap<(DoorId, PersonId), Ms>,
    /// When a rule last refused a person at a door, rule by rule.
    refusals: HashMap<(DoorId, PersonId, Reason), Ms>,
    /// Credentials that wait for their faces, the newest of each door.
    waiting: HashMap<DoorId, Waiting>,
    /// Whose duress number was read at a door, and when: whatever is read after it takes nothing of that back.
    duress: HashMap<(DoorId, PersonId), Ms>,
    /// Who was recognised at a door that opens for several people together.
    gathered: HashMap<DoorId, Vec<Companion>>,
    /// Who is enrolled at this moment, and what the gallery says of them; without it an observation's word holds.
    register: Option<Register>,
    places: Places,
    /// What faces failed at each door.
    throttle: Throttle,
    /// What numbers failed at each door's reader.
    readers: Throttle,
    /// Which faces failed.
    tried: TriedFaces,
    /// Refusals that a second camera may repeat.
    told: Told,
    passback: Passback,
    lockdown: Lockdown,
    holds: Holds,
    witnesses: Witnesses,
    /// Who was asked to turn the head and has not yet.
    pending: HashMap<(CameraId, TrackId, DoorId), Pending>,
    prompts: Vec<Prompt>,
    recognised: Vec<PersonId>,
    /// Where the side comes from that nobody can foresee; without it a challenge is failed.
    sides: Option<Sides>,
    vouching: Vouching,
    /// The embeddings are those of the pack that comes with the program.
    is_demo_pack: bool,
    changed: bool,
    /// Failures were counted that block nothing.
    charged: bool,
}

/// Whether somebody outside has to say first that this device's state is not an older one put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouching {
    /// Nobody is asked.
    NotAsked,
    /// Not heard yet: until this time grants are made all the same.
    Awaited(Ms),
    /// Heard at this time. What was seen before it may have been matched with what that word took back.
    Since(Ms),
}

/// Somebody who was recognised at a door for several people and waits for the others.
struct Companion {
    person: PersonId,
    /// What the gallery said when the person was recognised.
    profile: Profile,
    at: Ms,
}

/// Says what the gallery tells of a person now; none where nobody of that id is enrolled any more.
pub type Register = Box<dyn Fn(&PersonId) -> Option<Profile> + Send>;

/// Gives a side that nobody can foresee, or none where the system has no randomness.
pub type Sides = Box<dyn FnMut() -> Option<Side> + Send>;

impl Decider {
    /// A decider for these doors. Cameras that watch no door decide nothing. Until it is told better, the clock is unsure.
    pub fn new(
        device: DeviceId,
        settings: Settings,
        thresholds: Thresholds,
        doors: &[DoorSettings],
        rules: Rules,
        key: GrantKey,
    ) -> Self {
        let mut cameras: HashMap<CameraId, Vec<DoorId>> = HashMap::new();
        for door in doors {
            for camera in &door.cameras {
                cameras.entry(camera.clone()).or_default().push(door.id.clone());
            }
        }
        Self {
            device,
            thresholds: thresholds.with(&settings),
            raised: HashMap::new(),
            settings,
            cameras,
            doors: doors.iter().map(|door| door.id.clone()).collect(),
            liveness: doors.iter().map(|door| (door.id.clone(), door.liveness.clone())).collect(),
            key,
            clock: Clock::Unsure,
            decided: HashMap::new(),
            in_order: VecDeque::new(),
            approaches: HashMap::new(),
            refusals: HashMap::new(),
            waiting: HashMap::new(),
            duress: HashMap::new(),
            gathered: HashMap::new(),
            register: None,
            places: Places::default(),
            throttle: Throttle::new(rules.throttle.clone()),
            readers: Throttle::new(rules.throttle.clone()),
            tried: TriedFaces::new(rules.throttle.clone()),
            told: Told::default(),
            passback: Passback::new(rules.areas.clone()),
            lockdown: Lockdown::default(),
            holds: Holds::default(),
            witnesses: Witnesses::new(doors.iter().filter_map(|door| door.liveness.witness.as_ref())),
            pending: HashMap::new(),
            prompts: Vec::new(),
            recognised: Vec::new(),
            sides: None,
            vouching: Vouching::NotAsked,
            is_demo_pack: false,
            changed: false,
            charged: false,
            rules,
        }
    }

    /// The same with a source of sides for its challenges.
    pub fn with_sides(self, sides: Sides) -> Self {
        Self { sides: Some(sides), ..self }
    }

    /// The same, which looks people up anew at the moment of a grant: an observation, and whoever waits for company, may be older than a
    /// removal, a new date of expiry or a change of groups.
    pub fn with_register(self, register: Register) -> Self {
        Self { register: Some(register), ..self }
    }

    /// The same, which grants nothing before [`Input::Vouched`], but for as long as `unheard` from `now` on.
    pub fn with_vouching(self, unheard: Duration, now: Moment) -> Self {
        Self { vouching: Vouching::Awaited(ms(now.monotonic.plus(unheard))), ..self }
    }

    /// The same over the embeddings of a pack that is for a first look, where `is_demo_pack`: it grants only if the settings accept that.
    pub fn with_demo_pack(self, is_demo_pack: bool) -> Self {
        Self { is_demo_pack, ..self }
    }

    /// From now on these rules hold. Failures, blocks, lock-downs and who is where stay; companies and credentials that wait are forgotten.
    pub fn set_rules(&mut self, rules: Rules) {
        self.throttle.follow(rules.throttle.clone());
        self.readers.follow(rules.throttle.clone());
        self.tried.follow(rules.throttle.clone());
        self.passback.follow(rules.areas.clone());
        self.waiting.clear();
        self.gathered.clear();
        self.refusals.clear();
        self.rules = rules;
        self.changed = true;
    }

    /// From now on a match takes this score, where no door's own stands over it.
    pub fn set_matching(&mut self, matching: Score) {
        self.thresholds.matching = matching;
    }

    /// Takes an observation and gives a decision for each door of its camera, or none while the track should gather more evidence or
    /// is decided already. `grant_id` gives a fresh single-use id for every grant.
    pub fn decide(&mut self, observation: &Observation, now: Moment, grant_id: &mut dyn FnMut() -> String) -> Vec<Decision> {
        self.recognised.clear();
        let Some(doors) = self.cameras.get(&observation.camera).cloned() else { return Vec::new() };
        let track = (observation.camera.clone(), observation.track);
        let mut decisions = Vec::new();
        for door in doors {
            if self.decided.get(&track).is_some_and(|doors| doors.contains(&door)) {
                continue;
            }
            let verdict = self.verdict(observation, &door, now);
            let Some(verdict) = self.challenge(observation, &door, verdict, now) else { continue };
            if !self.is_ripe(&verdict, observation, &door) {
                continue;
            }
            self.remember(&track, &door);
            self.pending.remove(&(track.0.clone(), track.1, door.clone()));
            decisions.extend(self.conclude(observation, door, verdict, now, grant_id));
        }
        decisions
    }

    /// Who was recognised by the last call of [`Decider::decide`] without a decision, because their approach has had its own.
    pub fn take_recognised(&mut self) -> Vec<PersonId> {
        std::mem::take(&mut self.recognised)
    }

    /// Whether this track is decided at every door of its camera.
    pub fn is_decided(&self, camera: &CameraId, track: TrackId) -> bool {
        let doors = self.cameras.get(camera).map(Vec::as_slice).unwrap_or_default();
        self.decided.get(&(camera.clone(), track)).is_some_and(|decided| doors.iter().all(|door| decided.contains(door)))
    }

    /// Takes whatever else is to be known. An input that names no door of ours, or nobody's card, changes nothing but the throttle.
    pub fn take(&mut self, input: Input, now: Moment) -> Result<(), InputError> {
        match input {
            Input::Command(command) => return self.obey(command),
            Input::Credential(read) => return self.read(read, now),
            Input::Clock(clock) => self.clock = clock,
            Input::Sighting(sighting) => self.witnesses.hear(sighting),
            Input::TrackEnded(camera, track, area) => {
                let cool_down = self.rules.throttle.cool_down_ms;
                self.places.ended(&camera, track, area, (ms(now.monotonic), cool_down));
            }
            Input::Vouched => self.vouching = Vouching::Since(ms(now.monotonic)),
            Input::Passage(Passage { door, jti, passed }) => {
                self.changed |= self.passback.told(&door, &jti, passed, ms(now.monotonic));
            }
        }
        Ok(())
    }

    /// Takes an operator's orders that came as one. A name that is no door of ours is told, and keeps no other door open: the lock-downs
    /// beside it hold, while of releases none does.
    pub fn obey_all(&mut self, orders: Vec<Command>, now: Moment) -> Result<(), InputError> {
        let wrong = orders.iter().find_map(|order| self.is_of_ours(order).err());
        for order in orders {
            if wrong.is_none() || (matches!(order, Command::Lockdown { .. }) && self.is_of_ours(&order).is_ok()) {
                self.take(Input::Command(order), now)?;
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    fn is_of_ours(&self, command: &Command) -> Result<(), InputError> {
        match command {
            Command::Lockdown { door: Some(door) } | Command::Release { door: Some(door) } if !self.doors.contains(door) => {
                Err(InputError::UnknownDoor(door.clone()))
            }
            _ => Ok(()),
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), InputError> {
        self.is_of_ours(&command)?;
        match command {
            Command::Lockdown { door } => self.lockdown.begin(door),
            Command::Release { door } => {
                self.lockdown.end(door.as_ref(), &self.doors);
                self.throttle.release(door.as_ref());
                self.readers.release(door.as_ref());
                self.tried.release(door.as_ref());
            }
            Command::Forgive { person } => self.passback.forgive(person.as_ref()),
        }
        self.changed = true;
        Ok(())
    }

    /// Locks every door down because what was remembered is lost, until a release or until an operator accepts the loss.
    pub fn lock_down_for_loss(&mut self) {
        self.lockdown.for_loss = true;
        self.changed = true;
    }

    /// Whether a command has locked the door down.
    pub fn is_locked_down(&self, door: &DoorId) -> bool {
        self.lockdown.holds(door)
    }

    /// Every door, how its rules use it, and whether a command has locked it down.
    pub fn modes(&self) -> impl Iterator<Item = (&DoorId, policy::DoorMode, bool)> {
        self.doors.iter().map(|door| (door, self.rules.door(door).mode, self.lockdown.holds(door)))
    }

    /// Whether [`Decider::state`] has changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether failures were counted that are not written down yet: they may be, a moment later.
    pub fn has_charged(&self) -> bool {
        self.charged
    }

    /// They are written down.
    pub fn forget_charged(&mut self) {
        self.charged = false;
    }

    /// What is to be kept for the next run.
    pub fn state(&self, now: Moment) -> State {
        let now = ms(now.monotonic);
        State::new(self.lockdown.clone(), (self.throttle.state(now), self.readers.state(now)), self.passback.state(now))
    }

    /// Takes up what an earlier run kept.
    pub fn restore(&mut self, state: State, now: Moment) {
        let now = ms(now.monotonic);
        self.lockdown = state.lockdown;
        self.throttle.restore(state.throttle, now);
        self.readers.restore(state.readers, now);
        self.passback.restore(state.passback, now);
    }

    fn remember(&mut self, track: &(CameraId, TrackId), door: &DoorId) {
        if let Some(doors) = self.decided.get_mut(track) {
            doors.insert(door.clone());
            return;
        }
        while self.in_order.len() >= REMEMBERED_TRACKS {
            if let Some(oldest) = self.in_order.pop_front() {
                self.decided.remove(&oldest);
            }
        }
        self.in_order.push_back(track.clone());
        self.decided.insert(track.clone(), HashSet::from([door.clone()]));
    }

    /// A ripe verdict becomes a decision; none when it is the same approach once more.
    fn conclude(
        &mut self,
        observation: &Observation,
        door: DoorId,
        verdict: Verdict,
        now: Moment,
        grant_id: &mut dyn FnMut() -> String,
    ) -> Option<Decision> {
        let (person, factors, marks, captured_at) = match verdict {
            Verdict::Refused { reason, person, weight, .. } => {
                return self.refused(observation, door, (reason, person, weight), now);
            }
            Verdict::Match { person, factors, marks, captured_at } => (person, factors, marks, captured_at),
            Verdict::Hidden { reason, weight, .. } => {
                return self.refused_behind_a_block(observation, door, (reason, weight), now);
            }
            Verdict::Held => return self.refused_behind_a_block(observation, door, (Reason::Throttled, 0), now),
        };
        if !self.is_fresh(captured_at, now) {
            return self.refuse_once(observation, door, Reason::Stale, Some(person), now);
        }
        if self.is_same_approach(&door, &person, now) {
            self.recognised.push(person);
            return None;
        }
        let profile = self.profile(&person, observation.profiles.get(&person)).unwrap_or_default();
        let Some(company) = self.gather(&door, (&person, profile), now) else {
            return Some(self.refuse(observation, door, Reason::TooFewPeople, Some(person), now));
        };
        let jti = grant_id();
        self.let_through(&door, &company, &jti, now);
        let matching = self.thresholds_at(&observation.camera, &door).matching;
        self.tried.let_in(&door, &person, observation.probe.as_ref(), matching);
        let decision = self.grant(observation, door, person, now, jti);
        Some(Decision { factors, marks, captured_at, ..decision })
    }

    /// Evidence from the future is as little to be trusted as old evidence.
    fn is_fresh(&self, captured_at: Moment, now: Moment) -> bool {
        let (captured, now) = (captured_at.monotonic, now.monotonic);
        now.since(captured).max(captured.since(now)) <= Duration::from_millis(self.settings.max_age_ms)
    }

    fn is_same_approach(&self, door: &DoorId, person: &PersonId, now: Moment) -> bool {
        let last = self.approaches.get(&(door.clone(), person.clone()));
        last.is_some_and(|at| self.is_of_late(*at, now))
    }

    /// Whether something at `at` belongs to an approach that goes on.
    fn is_of_late(&self, at: Ms, now: Moment) -> bool {
        ms(now.monotonic).saturating_sub(at) < Ms::try_from(self.settings.approach_ms).unwrap_or(Ms::MAX)
    }

    /// Refuses, unless the same person was let through on this approach already (a second camera, or a track that broke, would break
    /// anti-passback), or was refused for the same reason: one decision for a person, a door and an approach.
    fn refuse_once(
        &mut self,
        observation: &Observation,
        door: DoorId,
        reason: Reason,
        person: Option<PersonId>,
        now: Moment,
    ) -> Option<Decision> {
        if let Some(person) = &person {
            let key = (door.clone(), person.clone(), reason);
            let was_refused = self.refusals.get(&key).is_some_and(|at| self.is_of_late(*at, now));
            let was_let_through = self.is_same_approach(&door, person, now);
            if was_let_through && reason != Reason::Stale {
                self.recognised.push(person.clone());
            }
            if was_refused || was_let_through {
                return None;
            }
            let within = Ms::try_from(self.settings.approach_ms).unwrap_or(Ms::MAX);
            forget_old(&mut self.refusals, |at| ms(now.monotonic).saturating_sub(at) < within);
            self.refusals.insert(key, ms(now.monotonic));
        }
        Some(self.refuse(observation, door, reason, person, now))
    }

    /// What is known of a person now: the register's word, or where there is none what was known before.
    fn profile(&self, person: &PersonId, before: Option<&Profile>) -> Option<Profile> {
        match &self.register {
            Some(register) => register(person),
            None => before.cloned(),
        }
    }

    /// Everybody who comes together with this person, once they are enough. Whoever was recognised before is company only while the rules
    /// would let that person through by now: removed, expired or out of time meanwhile is nobody's company.
    fn gather(&mut self, door: &DoorId, (person, profile): (&PersonId, Profile), now: Moment) -> Option<Vec<PersonId>> {
        let rule = self.rules.door(door);
        if rule.people_needed <= 1 || rule.mode == policy::DoorMode::Free {
            return Some(vec![person.clone()]);
        }
        let at = ms(now.monotonic);
        let (needed, window) = (rule.people_needed as usize, Ms::try_from(rule.people_window.as_millis()).unwrap_or(Ms::MAX));
        let mut gathered = self.gathered.remove(door).unwrap_or_default();
        gathered.retain(|other| other.person != *person && at.saturating_sub(other.at) <= window);
        gathered.push(Companion { person: person.clone(), profile, at });
        gathered.retain(|other| {
            let profile = self.profile(&other.person, Some(&other.profile));
            profile.is_some_and(|known| self.rules.permit(door, &other.person, &known, now.wall, self.clock).is_ok())
        });
        if gathered.len() < needed {
            self.gathered.insert(door.clone(), gathered);
            return None;
        }
        Some(gathered.into_iter().map(|other| other.person).collect())
    }

    fn let_through(&mut self, door: &DoorId, company: &[PersonId], jti: &str, now: Moment) {
        let now = ms(now.monotonic);
        self.waiting.remove(door);
        let within = Ms::try_from(self.settings.approach_ms).unwrap_or(Ms::MAX);
        forget_old(&mut self.approaches, |at| now.saturating_sub(at) < within);
        for person in company {
            self.approaches.insert((door.clone(), person.clone()), now);
            self.duress.remove(&(door.clone(), person.clone()));
        }
        self.changed |= self.passback.pass(door, company, jti, now);
    }

    /// The only place where a grant is made.
    fn grant(&self, observation: &Observation, door: DoorId, person: PersonId, now: Moment, jti: String) -> Decision {
        let issued = now.wall.unix_seconds();
        let lifetime = i64::try_from(self.settings.grant_lifetime_s).unwrap_or(1);
        let claims = Claims {
            iss: self.device.clone(),
            aud: door.clone(),
            sub: person.clone(),
            iat: issued,
            nbf: issued,
            exp: issued.saturating_add(lifetime),
            jti,
            hold_s: None,
        };
        let grant = Some(self.key.sign(&claims));
        Decision { grant, ..self.decision(observation, door, (Outcome::Granted, Reason::Match), Some(person), now) }
    }

    fn refuse(&self, observation: &Observation, door: DoorId, reason: Reason, person: Option<PersonId>, now: Moment) -> Decision {
        let outcome = match (reason, self.settings.ambiguous) {
            (Reason::Ambiguous, Ambiguous::Review) => Outcome::Review,
            _ => Outcome::Denied,
        };
        self.decision(observation, door, (outcome, reason), person, now)
    }

    fn decision(
        &self,
        observation: &Observation,
        door: DoorId,
        (outcome, reason): (Outcome, Reason),
        person: Option<PersonId>,
        now: Moment,
    ) -> Decision {
        let granted = person.as_ref().filter(|_| outcome == Outcome::Granted);
        Decision {
            outcome,
            reason,
            evidence: self.evidence(observation, &door, granted),
            camera: Some(observation.camera.clone()),
            track: observation.track,
            person,
            operator: None,
            factors: vec![Factor::Face],
            policy: self.rules.version.clone(),
            // Whoever forces somebody is not let in, and the silent alarm comes all the same.
            marks: if self.is_anybody_under_duress(&door, now) { vec![Mark::Duress] } else { Vec::new() },
            captured_at: observation.captured_at,
            decided_at: now,
            door,
            grant: None,
        }
    }
}

/// Keeps what is of late, once there is much of it.
fn forget_old<Key: Eq + Hash>(remembered: &mut HashMap<Key, Ms>, is_of_late: impl Fn(Ms) -> bool) {
    if remembered.len() >= REMEMBERED_APPROACHES {
        remembered.retain(|_, at| is_of_late(*at));
    }
}

#[cfg(test)]
mod tests;
