//! An enrolment before a camera or from a clip: frame after frame the faces of one person are gathered, each alone in view, good enough,
//! upright, alive, and like the ones before. Whoever else steps in ends it: begun again with the newer face, it would enrol whoever is
//! there last.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::StillFace;
use crate::gallery::resembles;
use crate::types::{Embedding, Monotonic, PadScore, Refusal, Score};

/// Frames closer together than this show the same face again.
const SPACING: Duration = Duration::from_millis(200);
/// So many faces that are taken for pictures end it, unless more were not: nobody enrols a photo by patience.
const MOST_ATTACKS: u32 = 3;
/// So many faces in a row that are unlike the ones kept are somebody else's.
const STRANGERS_IN_A_ROW: u32 = 2;
/// A face that is turned to a side by more degrees than this may be unlike the same person's frontal one: it is not kept, and no stranger.
const FRONTAL_DEGREES: f32 = 20.0;
/// Of so many faces that were compared one may be unlike the ones kept: a network's slip, which is not kept either.
const ONE_SLIP_OF: u32 = 20;

/// What an enrolment asks of its faces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The threshold of matching at the doors.
    pub matching: Score,
    /// A face below it is taken for a picture of one; none where the config asks for no liveness.
    pub liveness: Option<PadScore>,
    /// A face narrower than this says nothing of its liveness, in pixels.
    pub least_width: u32,
    /// How many faces make an enrolment.
    pub wanted: usize,
    /// Whether everything is looked at, and the best are taken, or the first that are good enough.
    pub is_whole: bool,
}

/// What one frame brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nobody is to be seen, or nothing can be said of the face.
    Nobody,
    /// More than one face is in view: it is not guessed who is meant.
    Crowded,
    /// The face is not good enough.
    Refused(Refusal),
    /// The face is taken for a picture of one.
    Picture,
    /// The face is another person's than the ones kept.
    AnotherPerson,
    /// The face was kept.
    Taken,
}

impl Step {
    /// What a person before the camera is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "no face",
            Self::Crowded => "more than one face in view: one person alone, please",
            Self::Refused(refusal) => refusal.as_str(),
            Self::Picture => "this looks like a picture of a face",
            Self::AnotherPerson => "this is another person",
            Self::Taken => "taken",
        }
    }
}

/// Why nobody was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// Somebody else stepped in.
    AnotherPerson,
    /// The face was taken for a picture of one.
    Picture,
    /// There was no frame at all.
    NoFrame,
    /// Too few good faces.
    TooFew {
        /// How many there were.
        kept: usize,
        /// How many were wanted.
        wanted: usize,
        /// Frames with more than one face.
        crowded: u32,
    },
    /// No face was good enough.
    Refused {
        /// What was wrong most often.
        refusal: Refusal,
        /// Frames looked at.
        looked: u32,
    },
    /// There was never one face alone.
    Crowded {
        /// Frames with more than one face.
        crowded: u32,
        /// Frames looked at.
        looked: u32,
    },
    /// There was no face.
    NoFace {
        /// Frames looked at.
        looked: u32,
    },
}

impl Unfinished {
    /// The word that scripts go by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AnotherPerson => "another-person",
            Self::Picture => "picture-of-a-face",
            Self::NoFrame => "no-frame",
            Self::TooFew { .. } => "too-few-faces",
            Self::Refused { .. } => "no-usable-face",
            Self::Crowded { .. } => "several-faces",
            Self::NoFace { .. } => "no-face",
        }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnotherPerson => f.write_str("another person stepped in: begin again with one person before the camera"),
            Self::Picture => f.write_str("the face was taken for a picture of one"),
            Self::NoFrame => f.write_str("no frame came in time"),
            Self::TooFew { kept, wanted, crowded } => {
                write!(f, "only {kept} of {wanted} pictures of one person in time")?;
                if *crowded > 0 { write!(f, "; {crowded} frames show more than one face") } else { Ok(()) }
            }
            Self::Refused { refusal, looked } => write!(f, "no usable face in {looked} frames, mostly {}", refusal.as_str()),
            Self::Crowded { crowded, looked } => write!(f, "{crowded} of {looked} frames show more than one face"),
            Self::NoFace { looked } => write!(f, "no face in {looked} frames"),
        }
    }
}

struct Kept {
    quality: f32,
    embedding: Embedding,
}

/// An enrolment under way.
pub struct Session {
    terms: Terms,
    kept: Vec<Kept>,
    last: Option<Monotonic>,
    looked: u32,
    crowded: u32,
    /// Faces whose liveness was judged, how many were taken for pictures, and the sum of the scores.
    judged: u32,
    attacks: u32,
    liveness: f32,
    /// Faces that were compared, how many were unlike, and how many of those came one after another until now.
    compared: u32,
    strangers: u32,
    strangers_in_a_row: u32,
    another_person: bool,
    refusals: BTreeMap<Refusal, u32>,
}

impl Session {
    /// Begins one.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            kept: Vec::new(),
            last: None,
            looked: 0,
            crowded: 0,
            judged: 0,
            attacks: 0,
            liveness: 0.0,
            compared: 0,
            strangers: 0,
            strangers_in_a_row: 0,
            another_person: false,
            refusals: BTreeMap::new(),
        }
    }

    /// Whether a frame captured then is to be looked at: not so soon after the one before, which shows the same.
    pub fn is_due(&self, at: Monotonic) -> bool {
        self.last.is_none_or(|last| at.since(last) >= SPACING)
    }

    /// Takes the faces of a frame.
    pub fn see(&mut self, at: Monotonic, faces: Vec<StillFace>) -> Step {
        let step = self.judge(faces);
        // Of a clip no frame is passed over until one has a face that is good enough to be judged.
        if !self.terms.is_whole || matches!(step, Step::Picture | Step::AnotherPerson | Step::Taken) {
            self.last = Some(at);
        }
        step
    }

    fn judge(&mut self, faces: Vec<StillFace>) -> Step {
        self.looked += 1;
        if faces.len() > 1 {
            self.crowded += 1;
            return Step::Crowded;
        }
        let Some(face) = faces.into_iter().next() else { return Step::Nobody };
        if let Some(refusal) = self.refusal(&face) {
            *self.refusals.entry(refusal).or_default() += 1;
            return Step::Refused(refusal);
        }
        let StillFace { quality: Some(quality), embedding: Some(embedding), liveness, .. } = face else { return Step::Nobody };
        if let Some(least) = self.terms.liveness {
            // A face of which no score says that it lives is as little a reference as one that a score speaks against.
            self.judged += 1;
            self.liveness += liveness.map_or(0.0, PadScore::value);
            if liveness.is_none_or(|score| score < least) {
                self.attacks += 1;
                return Step::Picture;
            }
        }
        let is_turned = quality.pose.yaw.abs() > FRONTAL_DEGREES;
        // The first one is what the others are held against.
        if !self.is_like_the_kept(&embedding) || (self.kept.is_empty() && is_turned) {
            if is_turned {
                *self.refusals.entry(Refusal::TurnedAway).or_default() += 1;
                return Step::Refused(Refusal::TurnedAway);
            }
            self.see_stranger();
            return Step::AnotherPerson;
        }
        self.strangers_in_a_row = 0;
        self.keep(Kept { quality: quality.score, embedding });
        Step::Taken
    }

    #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
    fn refusal(&self, face: &StillFace) -> Option<Refusal> {
        let refused = face.quality.as_ref().and_then(|quality| quality.refusals.first().copied());
        let is_narrow = self.terms.liveness.is_some() && face.detection.bounding_box.width < self.terms.least_width as f32;
        refused.or(is_narrow.then_some(Refusal::TooSmall)).or(face.turned_by.map(|_| Refusal::NotUpright))
    }

    fn is_like_the_kept(&mut self, embedding: &Embedding) -> bool {
        self.compared += 1;
        let known: Vec<&Embedding> = self.kept.iter().map(|kept| &kept.embedding).collect();
        known.is_empty() || resembles(embedding, &known, self.terms.matching)
    }

    fn see_stranger(&mut self) {
        self.strangers += 1;
        self.strangers_in_a_row += 1;
        let slips = 1 + self.compared / ONE_SLIP_OF;
        self.another_person |= self.strangers_in_a_row >= STRANGERS_IN_A_ROW || self.strangers > slips;
    }

    fn keep(&mut self, kept: Kept) {
        if self.kept.len() < self.terms.wanted {
            self.kept.push(kept);
        } else if let Some(worst) = self.kept.iter_mut().min_by(|a, b| a.quality.total_cmp(&b.quality))
            && kept.quality > worst.quality
        {
            *worst = kept;
        }
    }

    /// Faces kept so far.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing that comes can change the outcome.
    pub fn is_over(&self) -> bool {
        let is_full = !self.terms.is_whole && self.kept.len() >= self.terms.wanted;
        let is_picture = !self.terms.is_whole && self.attacks >= MOST_ATTACKS && 2 * self.attacks >= self.judged;
        is_full || is_picture || self.another_person
    }

    /// Whether what was judged alive is, all frames together: as at a door, a few lucky frames of a picture are not enough.
    #[expect(clippy::cast_precision_loss, reason = "counts of frames are far below 2^24")]
    fn is_alive(&self) -> bool {
        self.terms.liveness.is_none_or(|least| self.liveness / self.judged.max(1) as f32 >= least.value())
    }

    /// The faces, the best first, or why there are none. What ended early for want of time or of frames has all that was wanted, or,
    /// where everything was looked at, whatever was found.
    pub fn end(mut self) -> Result<Vec<Embedding>, Unfinished> {
        let (kept, looked, crowded) = (self.kept.len(), self.looked, self.crowded);
        let is_enough = kept >= self.terms.wanted || (self.terms.is_whole && kept > 0);
        let refusal = self.refusals.iter().max_by_key(|(_, count)| **count).map(|(refusal, _)| *refusal);
        match refusal {
            _ if self.another_person => Err(Unfinished::AnotherPerson),
            _ if self.judged > 0 && !self.is_alive() => Err(Unfinished::Picture),
            _ if is_enough => {
                self.kept.sort_by(|a, b| b.quality.total_cmp(&a.quality));
                Ok(self.kept.into_iter().map(|kept| kept.embedding).collect())
            }
            _ if self.attacks > 0 => Err(Unfinished::Picture),
            _ if looked == 0 => Err(Unfinished::NoFrame),
            _ if kept > 0 => Err(Unfinished::TooFew { kept, wanted: self.terms.wanted, crowded }),
            _ if crowded * 2 > looked => Err(Unfinished::Crowded { crowded, looked }),
            Some(refusal) => Err(Unfinished::Refused { refusal, looked }),
            None if crowded > 0 => Err(Unfinished::Crowded { crowded, looked }),
            None => Err(Unfinished::NoFace { looked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BoundingBox, Detection, Landmarks, ModelId};
    use crate::vision::Quality;

    const TERMS: Terms = Terms { matching: Score::MAX, liveness: None, least_width: 48, wanted: 5, is_whole: false };

    fn terms() -> Terms {
        Terms { matching: Score::new(0.5).unwrap(), liveness: Some(PadScore::new(0.5).unwrap()), ..TERMS }
    }

    fn face(who: usize, liveness: f32, refusals: Vec<Refusal>) -> StillFace {
        let mut values = vec![0.0; 8];
        values[who] = 1.0;
        let quality = Quality {
            score: 0.8,
            refusals,
            eye_distance: 60.0,
            sharpness: 50.0,
            luma: 120.0,
            pose: Default::default(),
            outside_share: 0.0,
        };
        let bounding_box = BoundingBox { x: 0.0, y: 0.0, width: 100.0, height: 120.0 };
        StillFace {
            detection: Detection { bounding_box, landmarks: Landmarks::default(), confidence: 0.9 },
            quality: Some(quality),
            turned_by: None,
            liveness: Some(PadScore::new(liveness).unwrap()),
            embedding: Embedding::normalised(ModelId::new("m").unwrap(), values),
        }
    }

    fn see(session: &mut Session, faces: Vec<StillFace>) -> Step {
        session.see(Monotonic(0), faces)
    }

    fn alive(who: usize) -> Vec<StillFace> {
        vec![face(who, 0.9, vec![])]
    }

    #[test]
    fn crowds_bad_faces_turned_ones_pictures_and_faces_without_a_liveness_score_are_no_references() {
        let mut session = Session::new(terms());
        let narrow = BoundingBox { width: 40.0, ..BoundingBox::default() };
        let cases = [
            (vec![face(0, 0.9, vec![]), face(1, 0.9, vec![])], Step::Crowded),
            (vec![face(0, 0.9, vec![Refusal::TooDark])], Step::Refused(Refusal::TooDark)),
            (vec![StillFace { turned_by: Some(180), ..face(0, 0.9, vec![]) }], Step::Refused(Refusal::NotUpright)),
            (
                vec![StillFace {
                    detection: Detection { bounding_box: narrow, ..face(0, 0.9, vec![]).detection },
                    ..face(0, 0.9, vec![])
                }],
                Step::Refused(Refusal::TooSmall),
            ),
            (vec![face(0, 0.2, vec![])], Step::Picture),
            (vec![StillFace { liveness: None, ..face(0, 0.9, vec![]) }], Step::Picture),
            (vec![], Step::Nobody),
        ];
        for (faces, step) in cases {
            assert_eq!(see(&mut session, faces), step);
        }
        assert_eq!((session.kept(), session.is_over()), (0, false));
        assert_eq!(session.end().err(), Some(Unfinished::Picture));
    }

    #[test]
    fn whoever_steps_in_ends_it_and_is_never_enrolled_in_the_first_ones_place() {
        for before in 1..5 {
            let mut session = Session::new(terms());
            (0..before).for_each(|_| assert_eq!(see(&mut session, alive(0)), Step::Taken));
            assert_eq!(see(&mut session, alive(1)), Step::AnotherPerson);
            assert!(!session.is_over(), "one slip of a network is none");
            assert_eq!(see(&mut session, alive(1)), Step::AnotherPerson);
            assert!(session.is_over());
            // However long the other one stays, and whether the first one comes back.
            for n in 0..10 {
                see(&mut session, alive(n % 2));
            }
            assert_eq!(session.end().err(), Some(Unfinished::AnotherPerson));
        }
    }

    #[test]
    fn before_a_camera_every_look_is_spaced_and_of_a_clip_only_those_at_good_faces() {
        for is_whole in [false, true] {
            let mut session = Session::new(Terms { is_whole, ..terms() });
            session.see(Monotonic(1_000_000_000), vec![face(0, 0.9, vec![Refusal::TooDark])]);
            assert_eq!(session.is_due(Monotonic(1_033_000_000)), is_whole);
            session.see(Monotonic(2_000_000_000), alive(0));
            assert!(!session.is_due(Monotonic(2_033_000_000)) && session.is_due(Monotonic(2_200_000_000)));
        }
    }

    #[test]
    fn a_face_that_is_turned_and_unlike_is_neither_kept_nor_a_stranger() {
        let mut session = Session::new(terms());
        see(&mut session, alive(0));
        for _ in 0..10 {
            let mut turned = face(1, 0.9, vec![]);
            turned.quality.as_mut().unwrap().pose.yaw = 35.0;
            assert_eq!(see(&mut session, vec![turned]), Step::Refused(Refusal::TurnedAway));
        }
        assert!(session.kept() == 1 && !session.is_over());
        (0..2).for_each(|_| assert_eq!(see(&mut session, alive(1)), Step::AnotherPerson));
        assert!(session.is_over());
    }

    #[test]
    fn two_who_take_turns_end_it_too() {
        let mut session = Session::new(terms());
        let steps: Vec<Step> = (0..4).map(|n| see(&mut session, alive(n % 2))).collect();
        assert_eq!(steps, [Step::Taken, Step::AnotherPerson, Step::Taken, Step::AnotherPerson]);
        assert!(session.is_over());
        assert_eq!(session.end().err(), Some(Unfinished::AnotherPerson));
    }

    #[test]
    fn one_slip_is_left_out_and_the_person_is_enrolled() {
        let mut session = Session::new(terms());
        for who in [0, 0, 3, 0, 0, 0] {
            assert!(!session.is_over());
            see(&mut session, alive(who));
        }
        assert!(session.is_over());
        let faces = session.end().unwrap();
        assert!(faces.len() == 5 && faces.iter().all(|face| face.values()[0] == 1.0));
    }

    #[test]
    fn a_picture_is_not_enrolled_by_patience_and_not_by_a_few_lucky_frames_of_a_clip() {
        let mut session = Session::new(terms());
        (0..3).for_each(|_| assert_eq!(see(&mut session, vec![face(0, 0.1, vec![])]), Step::Picture));
        assert!(session.is_over());
        let mut clip = Session::new(Terms { is_whole: true, ..terms() });
        for n in 0..40 {
            see(&mut clip, vec![face(0, if n % 5 == 0 { 0.6 } else { 0.1 }, vec![])]);
        }
        assert_eq!((clip.kept(), clip.end().err()), (5, Some(Unfinished::Picture)));
        // A living person whose first frames, and some later ones, are poor.
        let mut clip = Session::new(Terms { is_whole: true, ..terms() });
        for n in 0..40 {
            see(&mut clip, vec![face(0, if n < 4 || n % 9 == 0 { 0.3 } else { 0.8 }, vec![])]);
        }
        assert_eq!(clip.end().unwrap().len(), 5);
        // Where nothing is asked of liveness, nothing is held against a face.
        let mut session = Session::new(Terms { liveness: None, ..terms() });
        (0..5).for_each(|_| assert_eq!(see(&mut session, vec![face(0, 0.1, vec![])]), Step::Taken));
        assert!(session.end().is_ok());
    }

    #[test]
    fn of_a_whole_clip_the_best_faces_are_taken_and_of_a_short_one_what_there_is() {
        let mut clip = Session::new(Terms { is_whole: true, ..terms() });
        for n in 0..20 {
            let mut face = face(0, 0.9, vec![]);
            face.quality.as_mut().unwrap().score = n as f32 / 20.0;
            see(&mut clip, vec![face]);
        }
        assert!(clip.kept.iter().all(|kept| kept.quality >= 0.75));
        let mut clip = Session::new(Terms { is_whole: true, ..terms() });
        see(&mut clip, alive(0));
        assert_eq!(clip.end().unwrap().len(), 1);
        let mut session = Session::new(terms());
        see(&mut session, alive(0));
        see(&mut session, vec![face(0, 0.9, vec![]), face(1, 0.9, vec![])]);
        let why = session.end().err().unwrap();
        assert_eq!(why, Unfinished::TooFew { kept: 1, wanted: 5, crowded: 1 });
        assert!(why.to_string().contains("only 1 of 5") && why.to_string().contains("more than one face"), "{why}");
        assert_eq!(Session::new(terms()).end().err(), Some(Unfinished::NoFrame));
    }
}
