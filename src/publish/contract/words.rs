//! The closed lists of the contract in words: what each one means, and what to do about it.

/// A word of a list.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// The word as it is published.
    pub word: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

const fn word(word: &'static str, meaning: &'static str, advice: &'static str) -> Word {
    Word { word, meaning, advice }
}

/// Why a decision fell as it did: `data.reason`.
pub const REASONS: &[Word] = &[
    word("match", "A live, enrolled person, clearly recognised, whom the rules let in", "Nothing: the door opens by the grant"),
    word(
        "unknown",
        "Nobody in the gallery is alike enough",
        "A stranger, or somebody whose photos are too few or too old: enrol more (`faceid enroll`), look at light and distance",
    ),
    word(
        "ambiguous",
        "Two enrolled people are alike enough, and too close to each other",
        "Enrol more photos of both; ask for a card or PIN there (mode `two-factor`)",
    ),
    word("spoof", "A photo, a screen or a mask was shown", "Look who stands there; `alarm/spoof` tells the same at once"),
    word(
        "liveness-uncertain",
        "Liveness could not be told, or no liveness network is loaded where one is required",
        "Better light and a frontal look; `faceid doctor` says whether the pack has the network",
    ),
    word("expired-person", "The person's entry has expired", "`faceid people set ID --expires …`, if the person is still to come"),
    word(
        "stale",
        "The evidence was too old when it could be decided",
        "The device is overloaded: see `stats`, `faceid bench pipeline`",
    ),
    word(
        "gallery-unavailable",
        "The gallery is empty, belongs to another model, or is older than it was",
        "Enrol somebody; otherwise `faceid gallery verify` says what is wrong",
    ),
    word(
        "not-permitted",
        "No rule lets this person through this door, at any time",
        "Change `[policy]`; `faceid check --explain` says who may pass",
    ),
    word("schedule", "A rule lets this person through this door, but not now", "Come at the time, or change the rule's schedule"),
    word("not-yet-valid", "The person's time has not begun", "Wait, or change `valid-from` of `[[policy.people]]`"),
    word(
        "clock",
        "The rules ask for the time, and the clock cannot be relied on",
        "Let a time service set it: `timedatectl`, `faceid doctor`",
    ),
    word(
        "passback",
        "The person is inside already, or outside already",
        "Leave by the reader first; `faceid command forgive` for who was let through by hand",
    ),
    word(
        "second-factor",
        "The door asks for a card or a PIN besides the face: none came in time, or it is another person's",
        "Present it before or right after the look; see \"A card or PIN reader\"",
    ),
    word(
        "too-few-people",
        "The door opens for several people together, and this one came before the others",
        "The others look into the camera, too",
    ),
    word(
        "lockdown",
        "The door is locked down",
        "`faceid command release`, when the reason for it is over; a policy's `locked-down` mode stays",
    ),
    word(
        "throttled",
        "Too many attempts failed here and this face was no clear match, this very face failed a moment ago, or a picture was held up here",
        "Wait for the end that `door/{door}/throttle` names, or `faceid command release`; an enrolled person who is clearly seen passes all the same",
    ),
    word(
        "challenge",
        "The person was asked to turn the head and did not, or to the other side",
        "Try again and follow `door/{door}/prompt`",
    ),
    word("witness", "The second camera that must agree says nothing: it is away, or it stalls", "See its `camera/{camera}/status`"),
    word("several-faces", "The door opens for one face in view, and a second one was there", "One at a time"),
    word(
        "broker-silent",
        "The broker, which may know that an older state was put back, has not been heard since the start",
        "Mend the broker's access rules (`faceid/<device>/birth` must be readable for the device); `faceid doctor` says how it is",
    ),
    word(
        "demo-pack",
        "The networks are those that come with the program, which are for a first look, and the config does not accept them at a door",
        "`faceid models fetch standard`, `pack = \"standard\"`, enrol anew",
    ),
    word("operator", "An operator opened the door from a desk; no face was asked for", "Nothing; the audit trail has who"),
];

/// What an alarm is about: the last part of its topic, and `kind`.
pub const ALARMS: &[Word] = &[
    word("spoof", "A photo, a screen or a mask was shown", "Look who stands there"),
    word("forced-open", "The door opened without a grant", "Go and look"),
    word("held-open", "The door stays open for longer than `held-open-ms`", "Shut it"),
    word(
        "tamper",
        "A case, a sensor or a state file was touched, or an older state was put back",
        "See `detail`, then `faceid audit export`",
    ),
    word(
        "gallery-rollback",
        "The gallery is older than it was",
        "`faceid gallery verify` tells; `--accept-rollback` when it is understood",
    ),
    word("gallery-read-only", "A write failed, and the gallery takes no change", "Look after the disk, then restart"),
    word("outbox-full", "Decisions were lost because no broker took them for too long", "Mend the way to the broker; `outbox-mib`"),
    word("duress", "Somebody was let in who says to be forced", "As your site has agreed; nothing at the door shows it"),
    word("throttled", "Too many attempts failed at a door", "See `door/{door}/throttle`"),
    word(
        "witness-silent",
        "The broker tells nothing of this device's last `birth`, or has forgotten it",
        "Mend its access rules; see `faceid doctor`",
    ),
    word(
        "match-rate",
        "More strangers would be let in before a camera than the site bears",
        "Raise the threshold (`faceid calibrate`), or let `tighten-on-match-rate` do so",
    ),
];

/// Why a visit ended without a decision: `reason` of `camera/{camera}/attempt`.
pub const ATTEMPTS: &[Word] = &[
    word("too-small", "The eyes are too close together in the picture", "Come nearer, or a longer lens"),
    word("too-blurred", "Out of focus or moving", "More light, a shorter shutter, a clean lens"),
    word("too-dark", "Under-exposed", "Light on the face"),
    word("too-bright", "Over-exposed", "No sun into the lens or onto the face"),
    word("turned-away", "Turned too far to the side, up or down", "Look into the camera; hang it at the height of eyes"),
    word("cut-off", "Cut by the picture's edge", "Aim the camera"),
    word("low-confidence", "The detector was not sure that it is a face", "Better light, nothing before the face"),
    word("not-upright", "The head stands on its head or lies on its side in the picture", "Turn the camera"),
    word("too-short", "The face was good and gone too soon", "Nothing: somebody passed by"),
];

/// How a door stands: `door/{door}/state`.
pub const DOOR_STATES: [&str; 6] = ["locked", "unlocked", "open", "held-open", "forced-open", "unknown"];

/// A member of a command's `args`.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub needed: bool,
    /// What it is.
    pub what: &'static str,
}

const fn arg(name: &'static str, what: &'static str) -> Arg {
    Arg { name, needed: false, what }
}

const fn needed(name: &'static str, what: &'static str) -> Arg {
    Arg { name, needed: true, what }
}

/// A command.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Its word in topics.
    pub verb: &'static str,
    /// What it does.
    pub purpose: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
    /// What `result` of the answer is.
    pub answer: &'static str,
}

const NO_ARGS: &[Arg] = &[];
const DOORS: &[Arg] = &[arg("doors", "a list of doors; without it every door")];

/// Every command.
pub const ORDERS: &[Order] = &[
    Order { verb: "ping", purpose: "Says that the device is there; needs no signature", args: NO_ARGS, answer: "`version`" },
    Order {
        verb: "replay",
        purpose: "Gives decisions of the outbox again, as history",
        args: &[arg("from", "the first `sequence`, a number; 0 without it"), arg("limit", "how many, at most 64")],
        answer: "`events`, and `next`: the `from` of the next page",
    },
    Order {
        verb: "lockdown",
        purpose: "Grants nothing from now on, over restarts too",
        args: DOORS,
        answer: "`lockdown` true, `doors`",
    },
    Order {
        verb: "release",
        purpose: "Ends a lock-down that was commanded, and blocks after failed attempts",
        args: DOORS,
        answer: "`lockdown` false, `doors`",
    },
    Order {
        verb: "list",
        purpose: "Says who is enrolled, without names",
        args: NO_ARGS,
        answer: "`people`: `id`, `groups`, `templates`, `expires_at`",
    },
    Order {
        verb: "set",
        purpose: "Changes what is kept about a person; what is absent stays",
        args: &[
            needed("person", "who"),
            arg("name", "the name"),
            arg("groups", "a list of groups"),
            arg("expires_at", "when the entry expires, in milliseconds since 1970"),
        ],
        answer: "`people`, `templates`: how many there are now",
    },
    Order {
        verb: "remove",
        purpose: "Forgets a person with every template",
        args: &[needed("person", "who")],
        answer: "`people`, `templates`: how many there are now",
    },
    Order {
        verb: "enroll",
        purpose: "Enrols whoever stands before a camera; the answer comes at the end",
        args: &[
            needed("person", "the id"),
            needed("camera", "at which camera"),
            arg("name", "the name"),
            arg("groups", "a list of groups"),
            arg("seconds", "how long the person may take, 3 to 60; 20 without it"),
            arg("allow_duplicate", "true: even where the face is somebody else's who is enrolled"),
            arg("allow_other_face", "true: even where the face is unlike the one of this id; audited"),
        ],
        answer: "`person`, `templates_added`, `already_there`; of a failure `code`",
    },
    Order { verb: "snapshot-off", purpose: "Publishes no pictures any more", args: NO_ARGS, answer: "null" },
    Order {
        verb: "snapshot-on",
        purpose: "Publishes a sealed picture of each decision for a while",
        args: &[arg("seconds", "for how long; 300 without it")],
        answer: "`until`",
    },
    Order {
        verb: "rebuild",
        purpose: "Reads the gallery again and builds its index anew",
        args: NO_ARGS,
        answer: "`people`, `templates`: how many there are now",
    },
    Order {
        verb: "open",
        purpose: "Opens a door once; needs the right `open` of `[[policy.operators]]`",
        args: &[needed("door", "which door")],
        answer: "`door`",
    },
    Order {
        verb: "hold-open",
        purpose: "Holds doors open, at most for twelve hours; needs the right `hold-open` of `[[policy.operators]]`",
        args: &[
            needed("doors", "a list of doors"),
            arg("seconds", "for how long; 0 ends it. Give it or `until`"),
            arg("until", "until when, RFC 3339"),
        ],
        answer: "`doors`, `until`",
    },
    Order {
        verb: "forgive",
        purpose: "Forgets in which areas somebody is (anti-passback)",
        args: &[arg("person", "who. Give it or `everybody`"), arg("everybody", "true: everybody")],
        answer: "`forgiven`: the person, or null for everybody",
    },
];

/// Why a grant opens nothing: the words of `data/contract/grants.json` and `faceid grant verify`.
pub const GRANT_REFUSALS: &[Word] = &[
    word("malformed", "Not exactly the form below: parts, members, `typ`, base64url, length", "Not ours, or altered on the way"),
    word("algorithm", "`alg` is not `EdDSA`", "A forgery: tell whoever looks after the broker"),
    word("unknown-key", "`kid` is no trusted key", "Pin the device's new key (`faceid keygen --public`), if it has one"),
    word("signature", "The signature does not fit", "A forgery, or altered on the way"),
    word("audience", "It is for another door", "Look at the wiring of topics"),
    word("not-yet", "Its time has not come, by more than the leeway", "Compare the clocks of device and door"),
    word("expired", "Its time is over, by more than the leeway", "Too late: the network or the clocks"),
    word("lifetime", "It ends before it begins, or is to live for more than 300 s", "Not ours"),
    word("issuer", "It is another device's", "Look at the wiring of topics"),
    word("retained", "The broker kept it: decisions are never retained", "Somebody put it there: clear the topic"),
    word("used", "Its `jti` was taken before", "Nothing: QoS 1 may bring a message twice"),
];
