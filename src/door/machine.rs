//! What the door does: permits, inputs and time in, actions out. No I/O, no clock, so that its rules hold for every history.
//!
//! Only two inputs unlock: a [`Permit`], which nothing but [`super::Admission`] makes, and the request-to-exit button where the
//! settings let it. Every unlocking has its end from the moment it begins; a door that was opened and shut again locks at once.

use std::time::Duration;

use super::admission::Permit;
use super::settings::Settings;
use crate::types::Monotonic;

/// How long to wait before a failed driver is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A grant was admitted.
    Permit(Permit),
    /// The request-to-exit button.
    Exit {
        /// Whether it is down.
        pressed: bool,
    },
    /// The door's sensor: open, shut, or not to be read.
    Sensor(Option<bool>),
    /// The lock's driver could not do what it was told last.
    LockFailed,
    /// The lock's driver did what it was told last.
    LockDone,
    /// Time has passed.
    Tick,
    /// The controller ends.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Energise the lock.
    Unlock,
    /// Bring the lock into its safe state.
    Lock,
    /// Tell the state.
    Tell(DoorState),
    /// Raise an alarm.
    Alarm(AlarmWord),
    /// The door was opened for the permits since the last of these: their people have passed, or could.
    Passed,
    /// The time of those permits is over, and the door has stayed shut.
    Unused,
}

/// An alarm of the door: the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmWord {
    /// It opened without a permit.
    ForcedOpen,
    /// It stays open.
    HeldOpen,
}

impl AlarmWord {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmWord::ForcedOpen => "forced-open",
            AlarmWord::HeldOpen => "held-open",
        }
    }
}

/// How the door is: the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorState {
    /// Shut, as far as a sensor tells, and locked.
    Locked,
    /// Unlocked, not opened.
    Unlocked,
    /// Open.
    Open,
    /// Open for too long.
    HeldOpen,
    /// Opened without a permit.
    ForcedOpen,
    /// The lock or the sensor does not answer.
    Unknown,
}

impl DoorState {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            DoorState::Locked => "locked",
            DoorState::Unlocked => "unlocked",
            DoorState::Open => "open",
            DoorState::HeldOpen => "held-open",
            DoorState::ForcedOpen => "forced-open",
            DoorState::Unknown => "unknown",
        }
    }
}

/// The door.
pub struct Machine {
    unlock: Duration,
    held_open: Duration,
    exit_unlocks: bool,
    has_sensor: bool,
    /// Until when it is unlocked.
    unlocked_until: Option<Monotonic>,
    /// Until when an opening is nobody's break-in: a permit or the exit button, even where that does not unlock.
    expected_until: Option<Monotonic>,
    /// Since when it is open; `None` when shut or not known.
    open_since: Option<Monotonic>,
    /// A permit waits for its opening, which only a sensor tells.
    permitted: bool,
    sensor_lost: bool,
    /// The sensor has been read: before that, an open door is how things are and no opening.
    was_read: bool,
    was_opened: bool,
    forced: bool,
    held: bool,
    exit_down: bool,
    /// Until when an operator holds it open.
    held_until: Option<Monotonic>,
    /// Since when the driver fails.
    failed_at: Option<Monotonic>,
    stopped: bool,
    told: Option<DoorState>,
}

impl Machine {
    /// A door that is locked, as far as anybody knows.
    pub fn new(settings: &Settings, has_sensor: bool) -> Self {
        Self {
            unlock: Duration::from_millis(u64::from(settings.unlock_ms)),
            held_open: Duration::from_millis(u64::from(settings.held_open_ms)),
            exit_unlocks: settings.exit_unlocks,
            has_sensor,
            unlocked_until: None,
            expected_until: None,
            open_since: None,
            permitted: false,
            sensor_lost: has_sensor,
            was_read: false,
            was_opened: false,
            forced: false,
            held: false,
            exit_down: false,
            held_until: None,
            failed_at: None,
            stopped: false,
            told: None,
        }
    }

    /// One step. Time never goes back.
    pub fn step(&mut self, now: Monotonic, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        // The end of an unlocking comes before anything that happens after it.
        if self.held_until.is_some_and(|until| now >= until) {
            self.end_hold(now);
        }
        if self.unlocked_until.is_some_and(|until| now >= until) {
            self.shut(&mut actions);
        }
        if self.permitted && self.expected_until.is_none_or(|until| now >= until) {
            self.permitted = false;
            // A sensor that was lost meanwhile cannot say that nobody passed.
            actions.push(if self.sensor_lost { Action::Passed } else { Action::Unused });
        }
        match input {
            Input::Permit(permit) if permit.hold().is_some() && !self.stopped => {
                self.hold(now, permit.hold().unwrap_or_default(), &mut actions);
            }
            Input::Permit(_) if !self.stopped => {
                self.open_for(now, self.unlock, true, &mut actions);
                if self.open_since.is_some() {
                    actions.push(Action::Passed);
                } else {
                    self.permitted = self.has_sensor;
                }
            }
            Input::Exit { pressed } => {
                if pressed && !self.exit_down && !self.stopped {
                    self.open_for(now, self.unlock, self.exit_unlocks, &mut actions);
                }
                self.exit_down = pressed;
            }
            Input::Sensor(reading) => self.sense(now, reading, &mut actions),
            Input::LockFailed => {
                // Half done is not done: whatever it was told, from now on it is told to lock.
                self.unlocked_until = None;
                self.held_until = None;
                self.failed_at = Some(now);
            }
            Input::LockDone => self.failed_at = None,
            Input::Stop => {
                self.stopped = true;
                self.shut(&mut actions);
            }
            Input::Permit(_) | Input::Tick => {}
        }
        if let Some(failed) = self.failed_at
            && now.since(failed) >= RETRY
        {
            self.failed_at = Some(now);
            actions.push(Action::Lock);
        }
        if let Some(since) = self.open_since
            && !self.held
            && self.held_until.is_none()
            && now.since(since) >= self.held_open
        {
            self.held = true;
            actions.push(Action::Alarm(AlarmWord::HeldOpen));
        }
        let state = self.state();
        if self.told != Some(state) {
            self.told = Some(state);
            actions.push(Action::Tell(state));
        }
        actions
    }

    /// How the door is.
    pub fn state(&self) -> DoorState {
        if self.failed_at.is_some() || self.sensor_lost {
            DoorState::Unknown
        } else if self.forced {
            DoorState::ForcedOpen
        } else if self.held {
            DoorState::HeldOpen
        } else if self.open_since.is_some() {
            DoorState::Open
        } else if self.unlocked_until.is_some() {
            DoorState::Unlocked
        } else {
            DoorState::Locked
        }
    }

    /// An operator holds it open for so long from now on, whoever passes; nothing ends that.
    fn hold(&mut self, now: Monotonic, time: Duration, actions: &mut Vec<Action>) {
        if time.is_zero() {
            if self.held_until.is_some() {
                self.end_hold(now);
                self.expected_until = None;
                self.shut(actions);
            }
            return;
        }
        self.open_for(now, time, true, actions);
        self.held_until = self.unlocked_until;
        self.held = false;
    }

    /// From now on an open door is one that somebody has to shut.
    fn end_hold(&mut self, now: Monotonic) {
        self.held_until = None;
        self.was_opened = self.open_since.is_some();
        self.open_since = self.open_since.map(|_| now);
    }

    fn open_for(&mut self, now: Monotonic, time: Duration, unlocks: bool, actions: &mut Vec<Action>) {
        // What an operator holds open longer stays so.
        let until = self.held_until.unwrap_or(now).max(now.plus(time));
        self.expected_until = Some(until);
        if unlocks && self.failed_at.is_none() {
            if self.unlocked_until.is_none() {
                self.was_opened = false;
                actions.push(Action::Unlock);
            }
            self.unlocked_until = Some(until);
        }
    }

    fn shut(&mut self, actions: &mut Vec<Action>) {
        self.unlocked_until = None;
        self.held_until = None;
        actions.push(Action::Lock);
    }

    fn sense(&mut self, now: Monotonic, reading: Option<bool>, actions: &mut Vec<Action>) {
        self.sensor_lost = self.has_sensor && reading.is_none();
        let is_first = !self.was_read;
        self.was_read |= reading.is_some();
        match reading {
            Some(true) if self.open_since.is_none() => {
                self.open_since = Some(now);
                self.was_opened = true;
                let is_expected = self.expected_until.is_some_and(|until| now < until);
                if std::mem::take(&mut self.permitted) && is_expected {
                    actions.push(Action::Passed);
                }
                if !is_expected && !is_first {
                    self.forced = true;
                    actions.push(Action::Alarm(AlarmWord::ForcedOpen));
                }
            }
            Some(false) => {
                self.open_since = None;
                self.forced = false;
                self.held = false;
                if self.was_opened && self.held_until.is_none() {
                    self.was_opened = false;
                    // One grant is one passage.
                    self.expected_until = None;
                    if self.unlocked_until.is_some() {
                        self.shut(actions);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNLOCK_MS: u64 = 5_000;
    const HELD_MS: u64 = 30_000;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    fn machine(exit_unlocks: bool) -> Machine {
        let settings = Settings {
            unlock_ms: u32::try_from(UNLOCK_MS).unwrap(),
            held_open_ms: u32::try_from(HELD_MS).unwrap(),
            exit_unlocks,
            ..Settings::default()
        };
        let mut machine = Machine::new(&settings, true);
        assert_eq!(machine.step(at(0), Input::Sensor(Some(false))), [Action::Tell(DoorState::Locked)]);
        machine
    }

    fn permit() -> Input {
        Input::Permit(Permit::for_tests())
    }

    #[test]
    fn an_opening_without_a_permit_is_forced_until_it_is_shut() {
        let mut door = machine(false);
        let forced = [Action::Alarm(AlarmWord::ForcedOpen), Action::Tell(DoorState::ForcedOpen)];
        assert_eq!(door.step(at(10), Input::Sensor(Some(true))), forced);
        assert_eq!(door.step(at(20), Input::Sensor(Some(true))), []);
        assert_eq!(door.step(at(30), Input::Sensor(Some(false))), [Action::Tell(DoorState::Locked)]);
    }

    #[test]
    fn a_door_that_stands_open_at_the_start_is_open_and_then_held_open_and_no_break_in() {
        let settings = Settings { held_open_ms: u32::try_from(HELD_MS).unwrap(), ..Settings::default() };
        for unread in [0, 3] {
            let mut door = Machine::new(&settings, true);
            for n in 0..unread {
                assert!(!door.step(at(n), Input::Sensor(None)).contains(&Action::Alarm(AlarmWord::ForcedOpen)));
            }
            assert_eq!(door.step(at(10), Input::Sensor(Some(true))), [Action::Tell(DoorState::Open)]);
            assert_eq!(door.step(at(20), Input::Sensor(Some(true))), []);
            let held = [Action::Alarm(AlarmWord::HeldOpen), Action::Tell(DoorState::HeldOpen)];
            assert_eq!(door.step(at(10 + HELD_MS), Input::Tick), held);
            assert_eq!(door.step(at(11 + HELD_MS), Input::Sensor(Some(false))), [Action::Tell(DoorState::Locked)]);
            // From then on an opening is one, after a sensor that was lost too.
            assert!(!door.step(at(12 + HELD_MS), Input::Sensor(None)).contains(&Action::Alarm(AlarmWord::ForcedOpen)));
            assert_eq!(door.step(at(13 + HELD_MS), Input::Sensor(Some(true)))[0], Action::Alarm(AlarmWord::ForcedOpen));
        }
    }

    #[test]
    fn a_button_that_does_not_unlock_only_excuses_the_opening() {
        let mut door = machine(false);
        assert_eq!(door.step(at(10), Input::Exit { pressed: true }), []);
        assert_eq!(door.step(at(20), Input::Sensor(Some(true))), [Action::Tell(DoorState::Open)]);
        door.step(at(30), Input::Sensor(Some(false)));
        assert_eq!(door.step(at(40), Input::Sensor(Some(true)))[0], Action::Alarm(AlarmWord::ForcedOpen), "one press, one passage");
    }

    #[test]
    fn a_button_that_is_held_down_unlocks_once() {
        let mut door = machine(true);
        assert_eq!(door.step(at(10), Input::Exit { pressed: true })[0], Action::Unlock);
        assert_eq!(door.step(at(10 + UNLOCK_MS), Input::Exit { pressed: true })[0], Action::Lock);
        assert_eq!(door.step(at(11 + UNLOCK_MS), Input::Exit { pressed: true }), []);
    }

    #[test]
    fn a_driver_that_fails_is_told_to_lock_and_nothing_unlocks_until_it_has() {
        let mut door = machine(false);
        door.step(at(10), permit());
        assert_eq!(door.step(at(20), Input::LockFailed), [Action::Tell(DoorState::Unknown)]);
        assert_eq!(door.step(at(30), permit()), []);
        assert_eq!(door.step(at(1020), Input::Tick), [Action::Lock]);
        assert_eq!(door.step(at(1030), Input::LockDone), [Action::Tell(DoorState::Locked)]);
        assert_eq!(door.step(at(1040), permit())[0], Action::Unlock);
    }

    #[test]
    fn a_passage_ends_the_unlocking_and_one_that_nobody_uses_runs_out() {
        let mut door = machine(false);
        assert_eq!(door.step(at(10), permit()), [Action::Unlock, Action::Tell(DoorState::Unlocked)]);
        assert_eq!(door.step(at(20), Input::Sensor(Some(true))), [Action::Passed, Action::Tell(DoorState::Open)]);
        assert_eq!(door.step(at(30), Input::Sensor(Some(false))), [Action::Lock, Action::Tell(DoorState::Locked)]);
        door.step(at(40), permit());
        assert_eq!(door.step(at(39 + UNLOCK_MS), Input::Tick), []);
        let ended = [Action::Lock, Action::Unused, Action::Tell(DoorState::Locked)];
        assert_eq!(door.step(at(40 + UNLOCK_MS), Input::Tick), ended);
    }

    #[test]
    fn a_door_that_stays_open_is_told_once_and_a_sensor_that_dies_leaves_the_state_unknown() {
        let mut door = machine(false);
        door.step(at(10), permit());
        door.step(at(20), Input::Sensor(Some(true)));
        door.step(at(10 + UNLOCK_MS), Input::Tick);
        let held = [Action::Alarm(AlarmWord::HeldOpen), Action::Tell(DoorState::HeldOpen)];
        assert_eq!(door.step(at(20 + HELD_MS), Input::Tick), held);
        assert_eq!(door.step(at(30 + HELD_MS), Input::Tick), []);
        assert_eq!(door.step(at(40 + HELD_MS), Input::Sensor(None)), [Action::Tell(DoorState::Unknown)]);
    }

    fn hold(seconds: u64) -> Input {
        Input::Permit(Permit::holding(Duration::from_secs(seconds)))
    }

    #[test]
    fn a_door_that_is_held_open_stays_unlocked_whoever_passes_until_the_word_is_not_renewed() {
        let mut door = machine(false);
        assert_eq!(door.step(at(10), hold(30)), [Action::Unlock, Action::Tell(DoorState::Unlocked)]);
        for n in 0..3 {
            let from = 1_000 + 5_000 * n;
            assert_eq!(door.step(at(from), Input::Sensor(Some(true))), [Action::Tell(DoorState::Open)]);
            assert_eq!(door.step(at(from + 500), Input::Sensor(Some(false))), [Action::Tell(DoorState::Unlocked)], "not locked");
        }
        assert_eq!(door.step(at(20_000), hold(30)), []);
        // Somebody's own grant is a passage as ever, and does not shorten the hold.
        assert_eq!(door.step(at(21_000), permit()), []);
        assert_eq!(door.step(at(22_000), Input::Sensor(Some(true))), [Action::Passed, Action::Tell(DoorState::Open)]);
        // Propped open for longer than a door may be: while it is held that is as it should be, and from its end on the time runs.
        assert_eq!(door.step(at(49_999), Input::Tick), []);
        assert_eq!(door.step(at(50_000), Input::Tick), [Action::Lock]);
        assert_eq!(door.step(at(50_000 + HELD_MS - 1), Input::Tick), []);
        let held = [Action::Alarm(AlarmWord::HeldOpen), Action::Tell(DoorState::HeldOpen)];
        assert_eq!(door.step(at(50_000 + HELD_MS), Input::Tick), held);
        assert_eq!(door.step(at(51_000 + HELD_MS), Input::Sensor(Some(false))), [Action::Tell(DoorState::Locked)]);
        assert_eq!(door.step(at(52_000 + HELD_MS), Input::Sensor(Some(true)))[0], Action::Alarm(AlarmWord::ForcedOpen));
    }

    #[test]
    fn the_end_of_a_hold_locks_at_once_and_ends_nothing_else() {
        let mut door = machine(false);
        assert_eq!(door.step(at(5), hold(0)), [], "nothing was held");
        door.step(at(10), hold(30));
        assert_eq!(door.step(at(20), hold(0)), [Action::Lock, Action::Tell(DoorState::Locked)]);
        assert_eq!(door.step(at(30), Input::Sensor(Some(true)))[0], Action::Alarm(AlarmWord::ForcedOpen));
        door.step(at(40), Input::Sensor(Some(false)));
        door.step(at(50), permit());
        assert_eq!(door.step(at(60), hold(0)), [], "somebody's grant goes on");
        assert_eq!(door.state(), DoorState::Unlocked);
        // A stop locks, and nothing that comes later opens.
        door.step(at(70), hold(30));
        assert_eq!(door.step(at(80), Input::Stop)[0], Action::Lock);
        assert_eq!(door.step(at(90), hold(30)), []);
    }

    #[test]
    fn a_permit_is_a_passage_when_the_door_opens_and_unused_when_it_does_not() {
        let mut door = machine(false);
        door.step(at(10), permit());
        assert_eq!(door.step(at(20), Input::Sensor(Some(true))), [Action::Passed, Action::Tell(DoorState::Open)]);
        assert_eq!(door.step(at(30), permit()), [Action::Passed], "somebody else while it is open");
        door.step(at(40), Input::Sensor(Some(false)));
        door.step(at(50), permit());
        let ended = door.step(at(50 + UNLOCK_MS), Input::Tick);
        assert_eq!(ended, [Action::Lock, Action::Unused, Action::Tell(DoorState::Locked)]);
        assert_eq!(door.step(at(60 + UNLOCK_MS), Input::Tick), [], "told once");
        door.step(at(70 + UNLOCK_MS), permit());
        door.step(at(80 + UNLOCK_MS), Input::Sensor(None));
        let ended = door.step(at(70 + 2 * UNLOCK_MS), Input::Tick);
        assert!(ended.contains(&Action::Passed) && !ended.contains(&Action::Unused), "nobody knows: {ended:?}");
    }

    #[test]
    fn a_door_without_a_sensor_tells_no_passages() {
        let mut door = Machine::new(&Settings::default(), false);
        door.step(at(0), permit());
        let ended = door.step(at(u64::from(Settings::default().unlock_ms)), Input::Tick);
        assert!(ended.iter().all(|action| !matches!(action, Action::Passed | Action::Unused)), "{ended:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Permit,
        Exit(bool),
        Sensor(Option<bool>),
        LockFailed,
        LockDone,
        Tick,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = prop_oneof![
            Just(Step::Permit),
            any::<bool>().prop_map(Step::Exit),
            prop_oneof![Just(None), any::<bool>().prop_map(Some)].prop_map(Step::Sensor),
            Just(Step::LockFailed),
            Just(Step::LockDone),
            Just(Step::Tick),
        ];
        proptest::collection::vec((0u64..4_000, step), 0..60)
    }

    fn input(step: &Step) -> Input {
        match step {
            Step::Permit => permit(),
            Step::Exit(pressed) => Input::Exit { pressed: *pressed },
            Step::Sensor(reading) => Input::Sensor(*reading),
            Step::LockFailed => Input::LockFailed,
            Step::LockDone => Input::LockDone,
            Step::Tick => Input::Tick,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// In every history: an unlocking answers a permit or a pressed button where that is allowed and nothing else, none outlives
        /// its time, and a stop locks for good.
        #[test]
        fn nothing_but_a_permit_or_an_allowed_exit_unlocks_and_never_for_longer_than_its_time(steps in steps(), exit_unlocks: bool) {
            let mut door = machine(exit_unlocks);
            let (mut now, mut energised, mut may_until) = (0, false, 0);
            let (mut exit_was_down, mut waiting) = (false, false);
            for (wait, step) in &steps {
                now += wait;
                let is_reason = match step {
                    Step::Permit => true,
                    Step::Exit(down) => exit_unlocks && *down && !exit_was_down,
                    _ => false,
                };
                if let Step::Exit(down) = step {
                    exit_was_down = *down;
                }
                let mut passes = false;
                if is_reason {
                    may_until = now + UNLOCK_MS;
                }
                for action in door.step(at(now), input(step)) {
                    match action {
                        Action::Unlock => {
                            prop_assert!(is_reason, "unlocked by {:?}", step);
                            energised = true;
                        }
                        Action::Lock => energised = false,
                        Action::Tell(_) | Action::Alarm(_) => {}
                        Action::Passed if matches!(step, Step::Permit) => passes = true,
                        Action::Passed | Action::Unused => {
                            prop_assert!(waiting, "nobody was permitted since the last word");
                            waiting = false;
                        }
                    }
                }
                // The end of an earlier permit's wait comes first.
                waiting |= matches!(step, Step::Permit) && !passes;
                // A failed driver's real state is unknown: the machine tells it to lock within a second.
                if matches!(step, Step::LockFailed) {
                    energised = false;
                }
                prop_assert!(!energised || now < may_until, "energised at {} though its time ended at {}", now, may_until);
            }
            let last = door.step(at(now), Input::Stop);
            prop_assert!(last.contains(&Action::Lock));
            for (_, step) in &steps {
                prop_assert!(!door.step(at(now), input(step)).contains(&Action::Unlock), "unlocked after the stop");
            }
        }
    }
}
