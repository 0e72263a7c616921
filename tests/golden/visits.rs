//! What the pipeline makes of people who come, stay, hide, are relieved by others and go, with the built-in networks: the demo's photos are
//! shown where people stand. Who they are is told by their embeddings alone; no gallery is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use faceid_plus::inference::manifest::Manifest;
use faceid_plus::inference::{self, BackendChoice};
use faceid_plus::pipeline::{Continued, Pipeline, Seen, Settings};
use faceid_plus::types::{CameraId, Frame, Moment, Observation, Refusal, TrackId, Wall};
use faceid_plus::vision::stack::Stack;
use image::{Rgb, RgbImage, imageops};

use super::picture_of;

/// The time between two frames.
const STEP: Duration = Duration::from_millis(66);

struct Hall {
    pipeline: Pipeline,
    now: Moment,
    frames: u64,
}

/// What a stretch of frames gave.
struct Stretch(Vec<Seen>);

impl Hall {
    fn new(settings: Settings) -> Self {
        let manifest = Manifest::builtin().unwrap();
        let networks = inference::Settings { backend: BackendChoice::Tract, ..inference::Settings::default() };
        let stack = Stack::open(&manifest, "builtin", Path::new("."), &networks).unwrap();
        Self { pipeline: Pipeline::new(settings, stack, None), now: Moment::default(), frames: 0 }
    }

    fn camera() -> CameraId {
        CameraId::new("hall").unwrap()
    }

    /// So many frames of photos with their left edges; these move by `drift` pixels a frame.
    fn show(&mut self, frames: usize, photos: &[(&RgbImage, i64)], drift: i64) -> Stretch {
        let stretch = (0..frames).map(|n| {
            let mut scene = RgbImage::from_pixel(1280, 360, Rgb([90, 90, 90]));
            for (photo, x) in photos {
                imageops::overlay(&mut scene, *photo, x + drift * i64::try_from(n).unwrap(), 30);
            }
            self.now = Moment { monotonic: self.now.monotonic.plus(STEP), wall: Wall(self.now.wall.0 + 66) };
            self.frames += 1;
            let picture = picture_of(scene);
            let frame = Frame { camera: Self::camera(), number: self.frames, captured_at: self.now, picture };
            self.pipeline.process(&frame).unwrap()
        });
        Stretch(stretch.collect())
    }

    fn settle(&mut self, track: TrackId) {
        self.pipeline.settle(&Self::camera(), track);
    }
}

impl Stretch {
    fn tracks(&self) -> BTreeSet<TrackId> {
        self.0.iter().flat_map(|seen| seen.faces.iter().map(|face| face.track)).collect()
    }

    /// The tracks of the last frame that was looked at.
    fn last_tracks(&self) -> Vec<TrackId> {
        let last = self.0.iter().rfind(|seen| seen.looked).expect("no frame was looked at");
        last.faces.iter().map(|face| face.track).collect()
    }

    fn observations(&self) -> impl Iterator<Item = &Observation> {
        self.0.iter().flat_map(|seen| &seen.observations)
    }

    fn ended(&self) -> Vec<TrackId> {
        self.0.iter().flat_map(|seen| seen.ended.iter().map(|(track, _)| *track)).collect()
    }

    fn presence(&self) -> Vec<u32> {
        self.0.iter().filter_map(|seen| seen.presence).collect()
    }
}

fn photo(person: &str) -> RgbImage {
    let file = format!("data/demo/people/{person}/{person}_0001.jpg");
    image::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap().to_rgb8()
}

/// Somebody who stands there long enough to be observed.
fn stand(hall: &mut Hall, who: &RgbImage) -> TrackId {
    let stood = hall.show(10, &[(who, 400)], 0);
    let last = stood.observations().last().expect("nobody was observed");
    assert!(last.frames >= 3 && last.liveness_frames >= 3, "{last:?}");
    assert_eq!(stood.tracks().len(), 1);
    last.track
}

#[test]
fn several_people_keep_their_tracks_while_one_is_hidden_and_presence_tells_when_the_first_comes_and_the_last_goes() {
    let mut hall = Hall::new(Settings::default());
    let (a, b, c) = (photo("person-a"), photo("person-b"), photo("person-c"));
    let nobody = hall.show(3, &[], 0);
    assert!(nobody.presence().is_empty() && nobody.tracks().is_empty());
    let came = hall.show(10, &[(&a, 0), (&b, 330), (&c, 660)], 6);
    assert_eq!((came.presence().last(), came.last_tracks().len()), (Some(&3), 3));
    let hidden = hall.show(6, &[(&a, 60), (&c, 720)], 6);
    assert_eq!(hidden.last_tracks().len(), 2);
    let back = hall.show(10, &[(&a, 96), (&b, 426), (&c, 756)], 6);
    assert_eq!((back.tracks(), back.presence()), (came.tracks(), vec![]), "a hidden face keeps its track and is still there");
    assert!(hidden.ended().is_empty() && back.ended().is_empty());
    let gone = hall.show(30, &[], 0);
    assert_eq!(gone.presence(), [0]);
    assert_eq!(gone.ended().into_iter().collect::<BTreeSet<_>>(), came.tracks());
}

#[test]
fn another_face_in_the_same_place_is_another_visit_with_nothing_of_the_first() {
    let (a, b) = (photo("person-a"), photo("person-b"));
    let mut hall = Hall::new(Settings::default());
    let first = stand(&mut hall, &a);
    let switched_at = hall.now;
    let after = hall.show(10, &[(&b, 400)], 0);
    let second = after.last_tracks()[0];
    assert_ne!(second, first);
    assert_eq!(after.ended(), [first]);
    let lent = after.observations().filter(|o| o.track == second && o.first_usable_at.monotonic <= switched_at.monotonic);
    assert_eq!(lent.count(), 0, "the second visit begins with the first one's faces");
    assert!(after.observations().any(|o| o.track == second && o.frames >= 3), "and is gathered as any other");
}

#[test]
fn a_face_that_stands_in_for_a_single_frame_is_no_evidence_whenever_it_comes() {
    let (a, b) = (photo("person-a"), photo("person-b"));
    for (stays, stands_in) in [(&a, &b), (&b, &a)] {
        let mut hall = Hall::new(Settings::default());
        let track = stand(&mut hall, stays);
        let mut counted = 0;
        for n in 0..6 {
            let lent = hall.show(1, &[(stands_in, 400)], 0);
            assert!(lent.observations().next().is_none(), "evidence from another's face, turn {n}: {:?}", lent.0);
            let own = hall.show(3 + n % 3, &[(stays, 400)], 0);
            counted += own.observations().count();
            assert_eq!(own.last_tracks(), [track], "one bad picture is not another person");
        }
        assert!(counted >= 6, "the visit goes on: {counted}");
    }
}

#[test]
fn whoever_comes_back_on_another_track_goes_on_with_the_visit_only_when_the_face_is_the_same() {
    let (a, b) = (photo("person-a"), photo("person-b"));
    for (next, is_same) in [(&a, true), (&b, false)] {
        let mut hall = Hall::new(Settings { rejoin_ms: 3000, ..Settings::default() });
        let first = stand(&mut hall, &a);
        hall.settle(first);
        // Long enough for the tracker to give the face up, not for the visit to be forgotten.
        assert_eq!(hall.show(14, &[], 0).ended(), [first]);
        let after = hall.show(12, &[(next, 400)], 0);
        let continued: Vec<Continued> = after.0.iter().flat_map(|seen| seen.continued.clone()).collect();
        let expected = Continued { track: after.last_tracks()[0], before: first };
        assert_ne!(expected.track, first);
        assert_eq!(continued, if is_same { vec![expected] } else { vec![] });
        assert_eq!(after.observations().count() == 0, is_same, "the same face is not decided again, another is");
    }
}

#[test]
fn whoever_relieves_a_decided_face_that_was_hidden_is_decided_and_the_same_face_is_not_decided_again() {
    let (a, b) = (photo("person-a"), photo("person-b"));
    for (next, is_other) in [(&a, false), (&b, true)] {
        let mut hall = Hall::new(Settings::default());
        let first = stand(&mut hall, &a);
        hall.settle(first);
        assert!(hall.show(6, &[], 0).ended().is_empty());
        let after = hall.show(12, &[(next, 400)], 0);
        assert!(after.tracks().contains(&first), "the tracker alone takes it for the same");
        assert_eq!(after.observations().any(|o| o.track != first), is_other);
        assert!(after.observations().all(|o| o.track != first), "it is decided");
        assert_eq!(after.ended(), if is_other { vec![first] } else { vec![] });
    }
}

#[test]
fn a_decided_visit_ends_after_its_set_time_and_whoever_still_stands_there_is_decided_anew() {
    let a = photo("person-a");
    for (visit_s, is_over) in [(0, false), (2, true)] {
        let mut hall = Hall::new(Settings { visit_s, ..Settings::default() });
        let first = stand(&mut hall, &a);
        hall.settle(first);
        let stood = hall.show(40, &[(&a, 400)], 0);
        let anew: BTreeSet<TrackId> = stood.observations().map(|o| o.track).collect();
        assert_eq!(stood.ended().contains(&first), is_over, "{visit_s} s");
        assert_eq!(anew.len(), usize::from(is_over), "{visit_s} s");
        assert!(!anew.contains(&first));
    }
}

#[test]
fn a_face_below_the_least_width_for_liveness_is_no_evidence_and_leaves_an_attempt() {
    let a = photo("person-a");
    let mut hall = Hall::new(Settings { min_liveness_face_px: 400, ..Settings::default() });
    let stood = hall.show(10, &[(&a, 400)], 0);
    let gone = hall.show(30, &[], 0);
    assert_eq!(stood.observations().chain(gone.observations()).count(), 0);
    let attempts: Vec<_> = gone.0.iter().flat_map(|seen| &seen.attempts).collect();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].refusal, Some(Refusal::TooSmall));
}

#[test]
fn a_stream_that_is_lost_ends_its_tracks_with_their_last_word() {
    let a = photo("person-a");
    let mut hall = Hall::new(Settings::default());
    let first = stand(&mut hall, &a);
    let camera = Hall::camera();
    assert!(!hall.pipeline.is_abandoned(&camera, Duration::from_secs(3)));
    assert!(hall.pipeline.is_abandoned(&camera, Duration::from_secs(4)));
    let last = hall.pipeline.end_of_stream(&camera);
    assert_eq!((last.presence, last.observations.len()), (Some(0), 1));
    assert!(last.observations[0].ended && last.observations[0].track == first);
    assert!(!hall.pipeline.is_abandoned(&camera, Duration::from_secs(4)), "told once");
    assert!(hall.pipeline.end_of_stream(&camera).presence.is_none());
}
