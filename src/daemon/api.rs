//! What the local API gets of the daemon: the cameras' own recogniser, asked through a short queue, and the figures.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::broker_word::BrokerWord;
use super::control::is_erased;
use super::supervisor::{Role, WorkerContext, WorkerError};
use super::workers::{self, Counts};
use super::{deeds, events, figures};
use crate::access::{SiteThreshold, Thresholds};
use crate::capture::{Slots, still};
use crate::gallery::{Admission, Allowed, Gallery, GalleryError, IndexChoice, Rule, Snapshot, is_made};
use crate::http::{Backend, Unavailable};
use crate::pipeline::{Pipeline, StillFace, Timings};
use crate::publish::{Audit, Publisher};
use crate::system::{clock, messages};
use crate::types::{CameraId, Embedding, Frame, Monotonic, Person, PersonId, Picture};
use crate::vision::stack::PackThresholds;

/// Pictures that wait for the recogniser. When full, the client is told to try again.
const ASKS: usize = 4;
/// The longest wait for an answer: a picture of many faces on a slow board.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// A frame older than this means that no camera delivers; a door without one decides nothing.
const STALE_FRAME: Duration = Duration::from_secs(10);
/// How long the index's builder waits before it beats.
const REBUILD_PATIENCE: Duration = Duration::from_millis(500);
/// After a picture the recogniser belongs to the cameras alone for so many times as long as it took: a quarter of it is the API's.
const CAMERAS_SHARE: u32 = 3;
/// The API's first and longest wait between tries.
pub(super) const RETRY: Role = Role::Restartable { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30) };

/// A picture to be looked at between two frames.
pub(super) struct Ask {
    picture: Picture,
    /// Holds one answer and never blocks; nobody listens any more when it came too late.
    answer: SyncSender<Result<Vec<StillFace>, Unavailable>>,
}

/// The recogniser's end of the queue.
pub(super) struct Asks {
    asked: Receiver<Ask>,
    rest_until: Monotonic,
}

/// The API's end.
#[derive(Clone)]
pub(super) struct Recogniser {
    asks: SyncSender<Ask>,
    nudge: Slots<Frame>,
}

/// Both ends. `slots` are what the recogniser waits on: an ask wakes it.
pub(super) fn queue(slots: Slots<Frame>) -> (Recogniser, Asks) {
    let (asks, asked) = sync_channel(ASKS);
    (Recogniser { asks, nudge: slots }, Asks { asked, rest_until: Monotonic::default() })
}

impl Asks {
    /// Answers one ask, if there is any and the cameras have had their share since the last: a camera waits for one picture at most.
    pub(super) fn serve(&mut self, pipeline: &mut Pipeline) {
        let began = clock::monotonic();
        if self.is_cameras_turn(began) {
            return;
        }
        if let Ok(Ask { picture, answer }) = self.asked.try_recv() {
            let looked = pipeline.look_at_still(&picture).map_err(|error| {
                log::warn!("a picture of the API could not be judged: {error}");
                Unavailable::Failed
            });
            let _ = answer.try_send(looked);
            self.took(began, clock::monotonic());
        }
    }

    fn is_cameras_turn(&self, now: Monotonic) -> bool {
        now < self.rest_until
    }

    /// A picture was looked at from one time to another: now it is the cameras' turn.
    fn took(&mut self, began: Monotonic, ended: Monotonic) {
        self.rest_until = ended.plus(ended.since(began) * CAMERAS_SHARE);
    }

    /// How long a frame may be waited for before the next ask may be answered.
    pub(super) fn patience(&self, most: Duration) -> Duration {
        let rest = self.rest_until.since(clock::monotonic());
        if rest.is_zero() { most } else { rest.min(most) }
    }
}

impl Recogniser {
    fn look(&self, picture: Picture) -> Result<Vec<StillFace>, Unavailable> {
        let (answer, answered) = sync_channel(1);
        self.asks.try_send(Ask { picture, answer }).map_err(|error| match error {
            TrySendError::Full(_) => Unavailable::Busy,
            TrySendError::Disconnected(_) => Unavailable::Late,
        })?;
        self.nudge.nudge();
        answered.recv_timeout(ANSWER_DEADLINE).unwrap_or(Err(Unavailable::Late))
    }
}

/// What the API sees of the daemon.
pub(super) struct Api {
    pub(super) recogniser: Recogniser,
    pub(super) gallery: Arc<Gallery>,
    pub(super) thresholds: Thresholds,
    /// The threshold of a match at the doors, by the number of people enrolled.
    pub(super) site: SiteThreshold,
    pub(super) has_liveness: bool,
    pub(super) counts: Arc<Counts>,
    pub(super) timings: Arc<Timings>,
    pub(super) slots: Slots<Frame>,
    pub(super) cameras: Vec<CameraId>,
    pub(super) publisher: Publisher,
    pub(super) provider: String,
    pub(super) audit: Arc<Audit>,
    pub(super) word: Arc<BrokerWord>,
    pub(super) rebuild: SyncSender<()>,
    pub(super) max_pixels: u64,
}

impl Backend for Api {
    fn decode(&self, bytes: &[u8]) -> Result<Picture, String> {
        still::decode_picture_within(bytes, self.max_pixels).map_err(|error| error.to_string())
    }

    fn look(&self, picture: Picture) -> Result<Vec<StillFace>, Unavailable> {
        self.recogniser.look(picture)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.gallery.snapshot()
    }

    fn trusted(&self) -> Result<Arc<Snapshot>, Unavailable> {
        self.gallery.trusted().ok_or(Unavailable::Untrusted)
    }

    fn thresholds(&self) -> PackThresholds {
        let Thresholds { margin, liveness, .. } = self.thresholds;
        let (matching, _) = self.site.at(self.gallery.snapshot().stats().people);
        PackThresholds { matching, margin, liveness }
    }

    fn has_liveness(&self) -> bool {
        self.has_liveness
    }

    fn not_ready(&self) -> Option<String> {
        let last = self.counts.last_frame.last();
        why_not_ready(self.gallery.rollback().is_some(), last.map(|at| clock::monotonic().since(at)))
    }

    fn admit(
        &self,
        person: Person,
        templates: Vec<Embedding>,
        allowed: Allowed,
        by: &str,
    ) -> Result<Option<Admission>, GalleryError> {
        let rule = Rule { matching: self.thresholds.matching, allowed };
        let (admissions, done) = self.gallery.admit(vec![(person, templates)], &rule);
        let admission = admissions.into_iter().next();
        if let Some(admission) = admission.as_ref().filter(|_| is_made(&done)) {
            let (id, added) = (&admission.person, admission.added());
            if added > 0 {
                log::info!(MESSAGE_ID = messages::ENROLLED, people = id.as_str(), by = by; "enrolled");
                let mut what = json!({"enrolled": id, "templates": added});
                if allowed.other_face {
                    what["allow_other_face"] = json!(true);
                }
                self.note(by, what);
            } else if admission.is_changed {
                log::info!(MESSAGE_ID = messages::CHANGED, person = id.as_str(), by = by; "changed");
                self.note(by, deeds::changed(id));
            }
        }
        done.map(|()| admission)
    }

    fn set(&self, person: Person, by: &str) -> Result<(), GalleryError> {
        let id = person.id.clone();
        let set = self.gallery.set(person);
        if is_made(&set) {
            log::info!(MESSAGE_ID = messages::CHANGED, person = id.as_str(), by = by; "changed");
            self.note(by, deeds::changed(&id));
        }
        set
    }

    fn remove(&self, person: &PersonId, by: &str) -> Result<bool, GalleryError> {
        let removed = self.gallery.erase(person);
        let erased = is_erased(&removed);
        if is_made(&removed) {
            log::info!(MESSAGE_ID = messages::REMOVED, person = person.as_str(), by = by; "removed");
            self.note(by, deeds::removed(person, erased));
        }
        match removed {
            Err(error @ GalleryError::NotErased { .. }) => log::error!("{error}"),
            other => other?,
        }
        Ok(erased)
    }

    fn rebuild(&self, by: &str) -> bool {
        let begun = self.rebuild.try_send(()).is_ok();
        if begun {
            self.note(by, json!({"rebuild": "index"}));
        }
        begun
    }

    fn metrics(&self) -> String {
        figures::text(self)
    }
}

/// Why the daemon could not decide now. Anybody may read it, so it tells neither who is enrolled nor how far the gallery had come. A gallery
/// that takes no change since a write failed is no reason: matching goes on, and everything else tells of it.
fn why_not_ready(is_rolled_back: bool, since_last_frame: Option<Duration>) -> Option<String> {
    match since_last_frame {
        _ if is_rolled_back => Some(Unavailable::Untrusted.to_string()),
        None => Some("no frame has been judged yet".to_owned()),
        Some(age) if age > STALE_FRAME => Some(format!("no frame has been judged for {} s", age.as_secs())),
        Some(_) => None,
    }
}

impl Api {
    fn note(&self, by: &str, what: Value) {
        events::note(&self.audit, &self.publisher, "api", json!({"by": by, "what": what}));
    }
}

/// Builds the search index anew whenever it is asked for, beside the worker that keeps it: what served before serves meanwhile.
pub(super) fn rebuild(
    context: &WorkerContext,
    asked: &Receiver<()>,
    gallery: &Gallery,
    choice: IndexChoice,
) -> Result<(), WorkerError> {
    // Of this thread alone; without it the build is merely in the way.
    let _ = rustix::process::nice(19);
    while !context.stop().is_asked() {
        context.beat();
        if asked.recv_timeout(REBUILD_PATIENCE).is_ok() {
            let report = gallery.build_index(choice, 1, context.stop());
            log::info!("search index, as asked: {}", workers::index_line(&report));
        }
    }
    Ok(())
}

/// Serves the API until told to stop.
pub(super) fn serve(
    context: &WorkerContext,
    settings: &crate::http::Settings,
    secrets: &std::path::Path,
    state: &std::path::Path,
    api: &Arc<Api>,
) -> Result<(), WorkerError> {
    let tokens = crate::http::Tokens::read(secrets)?;
    crate::http::run(settings, tokens, api.clone(), state, context.stop(), &|| context.beat())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gallery_to_trust_or_a_frame_of_late_it_is_not_ready_and_says_why() {
        let (fresh, stale) = (Some(STALE_FRAME), Some(STALE_FRAME + Duration::from_secs(1)));
        let why = |is_rolled_back, since| why_not_ready(is_rolled_back, since).unwrap();
        for since in [None, fresh, stale] {
            assert!(why(true, since).contains("not the newest"), "{since:?}");
        }
        assert_eq!(why(false, None), "no frame has been judged yet");
        assert_eq!(why(false, stale), "no frame has been judged for 11 s");
        assert_eq!(why_not_ready(false, fresh), None);
    }

    #[test]
    fn while_the_cameras_have_their_share_a_frame_is_waited_for_no_longer_than_that() {
        let (_recogniser, mut asks) = queue(Slots::new(1));
        let most = Duration::from_secs(600);
        assert_eq!(asks.patience(most), most);
        asks.rest_until = clock::monotonic().plus(Duration::from_secs(60));
        assert!(
            asks.patience(most) <= Duration::from_secs(60) && asks.patience(Duration::from_millis(1)) == Duration::from_millis(1)
        );
    }

    #[test]
    fn asked_without_a_pause_the_recogniser_gives_the_api_a_quarter_of_its_time() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (_recogniser, mut asks) = queue(Slots::new(1));
        let (start, mut now, mut for_api) = (Monotonic::default(), Monotonic::default(), Duration::ZERO);
        for _ in 0..10_000 {
            // A frame is always there, and so is a picture.
            now = now.plus(Duration::from_micros(random.u64(1_000..60_000)));
            if !asks.is_cameras_turn(now) {
                let picture = Duration::from_micros(random.u64(1_000..400_000));
                asks.took(now, now.plus(picture));
                (now, for_api) = (now.plus(picture), for_api + picture);
            }
        }
        let all = now.since(start);
        // The last picture's rest may still be to come.
        assert!(for_api * (1 + CAMERAS_SHARE) <= all + Duration::from_millis(400) * CAMERAS_SHARE, "{for_api:?} of {all:?}");
        assert!(for_api * 8 > all, "{for_api:?} of {all:?}: the API must not starve either");
    }

    #[test]
    fn pictures_beyond_the_queue_are_told_to_come_again() {
        let (recogniser, _asks) = queue(Slots::new(1));
        for _ in 0..ASKS {
            let (answer, _) = sync_channel(1);
            let picture = Picture::from_rgb(1, 1, vec![0; 3]).unwrap();
            assert!(recogniser.asks.try_send(Ask { picture, answer }).is_ok());
        }
        let more = recogniser.look(Picture::from_rgb(1, 1, vec![0; 3]).unwrap());
        assert!(matches!(more, Err(Unavailable::Busy)));
    }
}
