//! FaceID+: a face-access daemon for doors. The map of the crate.
//!
//! [`capture`] brings frames, [`pipeline`] takes each through the stages of [`vision`] (networks opened by [`inference`]) and the
//! [`gallery`], [`access`] decides, [`publish`] tells, [`daemon`] runs them all, [`config`] composes their settings, [`cli`] is the
//! command line, [`door`] is the other end, which acts on grants, [`system`] is what every worker needs of the machine, [`types`] are the values that cross rooms.
//!
//! Evidence is gathered over a visit ([`pipeline`]: a track's best shots, its liveness over several frames, split when the face becomes
//! another's). A visit only says who it may be: what a person is granted rests on the samples that each, for themselves, match that person
//! (`access/shown.rs`: liveness, number, turn of the head, second camera). `src/daemon/sequences.rs` takes random sequences of several
//! people's faces through all of it. The rules are data (the config's `policy`, made ready by [`access::rules`], which `faceid check --explain` asks too); what
//! the decider must remember beyond a restart is a value that [`daemon`] keeps before it publishes.
//!
//! Besides the pack's networks a door may ask for a turn of the head, or name an infrared or depth camera that must see the same face: the
//! pipeline tells what such a camera saw, the decider what it is worth, and none of it can do more than deny.
//!
//! Operators with the right of the policy open doors and hold them open from a desk ([`access`]'s `desk.rs`): a hold is a signed word for
//! seconds, renewed by the daemon and dropped by the door's machine when nothing comes any more. Rules and operators' keys are read again
//! at a reload (`daemon/desk.rs`), which also tells how each door stands.
//!
//! Where a site has an access panel, the door's controller is its OSDP reader ([`door::panel`], [`door::osdp`]): a grant is presented as the
//! person's card, and the panel may have the last word. What the controller must tell of alarms and passages is on disk first
//! ([`door::diary`]); passages tell anti-passback whether a grant was used.
//!
//! What keeps an attacker out besides: one rule for every way to enrol ([`gallery`]'s `enrolment.rs`); a block of a door concerns faces that
//! failed, never whom the door knows (`access/barred.rs`); nothing is granted before the broker has told what it keeps of this device
//! (`daemon/broker_word.rs`; `unheard-grants-s` sets a time for it); messages come in by lanes, signed ones first, and whoever breaks the protocol is left ([`publish::lanes`],
//! [`publish::wire`]); the latest time that was shown is remembered ([`system::highwater`]); no link that was planted is followed, and root
//! becomes the owner of what it writes ([`system::files`], [`system::owner`]).
//!
//! [`http`] is the local API: it knows requests, tokens and answers, and asks the daemon's own recogniser between two frames, for a quarter
//! of its time at most; people are enrolled and removed through it by the daemon, the gallery's one writer.
//!
//! [`evaluation`] turns scores whose truth is known into error rates with exact intervals, and into plots. It opens no file and runs
//! no network: the command line's `eval` brings it the scores. [`daemon`] brings it what strangers scored at its own doors
//! (`evaluation/tail.rs`), and tells when more of them would be let in than the site bears.
//!
//! Who may name whom (`tests/architecture.rs` reads this table and fails on any other arrow):
//!
//! ```text
//! types -> nothing
//! system -> types
//! inference, capture, gallery, evaluation -> types system
//! access -> types
//! publish -> types system access
//! door -> types system access publish
//! vision -> types inference
//! pipeline -> types system capture vision gallery
//! http -> types system pipeline gallery vision
//! config -> types system access capture door gallery http inference pipeline publish
//! daemon -> types system config pipeline access capture evaluation gallery http inference publish vision
//! cli -> everything
//! ```
//!
//! The gallery has one writer: while a daemon runs that is the daemon, and the command line asks it through a socket in the state folder
//! ([`daemon::control`]). A gallery that is older than it was grants nothing until somebody has accepted it.
//!
//! What holds everywhere: a grant is made in one place ([`access::Decider`]) and nothing that failed reaches it; embeddings and keys have
//! no `Debug` that tells them, no `Serialize`, and are cleared when they go; a [`types::Score`] is never taken for a [`types::PadScore`]; embeddings of
//! two models are never compared; outside input never panics; every queue is bounded, and every wait has a deadline and hears stop.
//! What opens a door is a grant alone (and the request-to-exit button, where there is one), and `publish` and `door` use of `access` only what signs and verifies
//! ([`access::grant`]). Deliberately absent: a clock outside [`system::clock`], a network's constants outside the manifest, pictures on disk; a picture
//! leaves the device only sealed, after a signed command, for a while.
pub mod access;
pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod door;
pub mod evaluation;
pub mod gallery;
pub mod http;
pub mod inference;
pub mod pipeline;
pub mod publish;
pub mod system;
pub mod types;
pub mod vision;
