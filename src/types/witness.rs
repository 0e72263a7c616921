//! What liveness asks for besides the pictures of a door's own cameras: what a person is asked to do, and what a second camera saw.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CameraId, DoorId, Moment, Monotonic, Place, TrackId};

/// The side to which a person turns the head: the person's own left or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The person's left, which a camera that does not mirror sees on the image's right.
    Left,
    /// The person's right.
    Right,
}

/// What a person at a door is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// At which door.
    pub door: DoorId,
    /// Which camera looks.
    pub camera: CameraId,
    /// Who: the track.
    pub track: TrackId,
    /// Turn the head to this side.
    pub side: Side,
    /// Only what is captured after this moment counts.
    pub asked_at: Moment,
    /// And not after this one.
    pub until: Moment,
}

/// What kind of camera must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessKind {
    /// A near-infrared camera: a face must be found in its picture too. Screens are dark there.
    Infrared,
    /// A depth camera (16 bits a pixel, in millimetres), registered to the door's camera: the face must not be flat.
    Depth,
}

/// What a second camera saw in one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Which camera.
    pub camera: CameraId,
    /// When the frame was captured.
    pub captured_at: Moment,
    /// The living faces in it, as far as this camera can tell; none is a statement too.
    pub faces: Vec<Place>,
}

/// Where one face was of late, as the door's own camera saw it: what another camera's pictures are held against, each by its own time. A
/// second camera's frame may be judged much later than it was taken, and the face has moved on by then.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trajectory(VecDeque<(Monotonic, Place)>);

impl Trajectory {
    /// Frames this far apart in time show the same moment: three frames of a camera that a busy machine reads fifteen times a second. A
    /// face that walks into the picture (0.39 of its width a second in the project's clip) moves by half of the usual tolerance meanwhile.
    const SAME_MOMENT: Duration = Duration::from_millis(200);
    /// Older places are forgotten.
    const REMEMBERED: Duration = Duration::from_millis(1500);
    /// The most places, for a camera of many frames a second.
    const MOST: usize = 256;

    /// The face is here now. A moment before the newest one is not taken.
    pub fn push(&mut self, at: Monotonic, place: Place) {
        if self.0.back().is_some_and(|(newest, _)| at < *newest) {
            return;
        }
        let is_old = |(then, _): &(Monotonic, Place)| at.since(*then) > Self::REMEMBERED;
        while self.0.len() >= Self::MOST || self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        self.0.push_back((at, place));
    }

    /// Where the face was at a moment; `None` when no frame of about that time shows it, and before the first that does: whoever was
    /// there until then is another.
    pub fn at(&self, moment: Monotonic) -> Option<Place> {
        if self.0.front().is_none_or(|(first, _)| moment < *first) {
            return None;
        }
        let apart = |then: Monotonic| then.since(moment).max(moment.since(then));
        let (then, place) = self.0.iter().min_by_key(|(then, _)| apart(*then))?;
        (apart(*then) <= Self::SAME_MOMENT).then_some(*place)
    }

    /// How tall the face was where it was nearest, as a share of the picture; none of a face that was nowhere.
    pub fn tallest(&self) -> Option<f32> {
        self.0.iter().map(|(_, place)| place.height).reduce(f32::max)
    }

    /// The part from a moment on, for the visit of a face that came in another's place.
    pub fn since(&self, moment: Monotonic) -> Self {
        Self(self.0.iter().filter(|(then, _)| *then >= moment).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    fn place(x: f32) -> Place {
        Place { x, y: 0.5, height: 0.2 }
    }

    #[test]
    fn a_face_is_told_where_it_was_at_that_time_and_nowhere_when_no_frame_of_then_shows_it() {
        let mut walk = Trajectory::default();
        assert_eq!(walk.at(at(0)), None);
        for (ms, x) in [(1000, 0.1), (1100, 0.2), (1600, 0.7)] {
            walk.push(at(ms), place(x));
        }
        walk.push(at(1200), place(0.9));
        assert_eq!(walk.at(at(1040)), Some(place(0.1)));
        assert_eq!(walk.at(at(1060)), Some(place(0.2)));
        assert_eq!(walk.at(at(1300)), Some(place(0.2)));
        assert_eq!(walk.at(at(1350)), None, "out of sight");
        assert_eq!((walk.at(at(999)), walk.at(at(1000))), (None, Some(place(0.1))), "before it came");
        assert_eq!((walk.at(at(1800)), walk.at(at(1801))), (Some(place(0.7)), None));
        walk.push(at(1650), Place { height: 0.4, ..place(0.7) });
        walk.push(at(1660), place(0.7));
        assert_eq!((walk.tallest(), Trajectory::default().tallest()), (Some(0.4), None));
        let other = walk.since(at(1100));
        assert_eq!((other.at(at(1100)), other.at(at(1099))), (Some(place(0.2)), None));
    }

    #[test]
    fn it_forgets_by_age_and_by_number() {
        let mut walk = Trajectory::default();
        walk.push(at(0), place(0.1));
        walk.push(at(1501), place(0.2));
        assert_eq!(walk.at(at(0)), None);
        (0..10_000).for_each(|_| walk.push(at(1501), place(0.3)));
        assert_eq!(walk.0.len(), Trajectory::MOST);
    }
}
