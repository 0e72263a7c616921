//! Keeps pictures that are not whole from being evidence. A video decoder makes something of any data: before the first key frame, and from
//! a loss to the next one, grey smears in which a detector finds faces of nobody.
//!
//! In every pipeline that is given to [`Whole::watch`] packets are counted where they go into a depayloader, and pictures are let through
//! behind the parser: none before a key frame, and none from a gap in the packets' numbers on. Which picture lost a packet is not known
//! there, so that the few that may be on their way count as damaged even where they are key frames. What a decoder itself calls corrupt is
//! passed over too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::system::clock;
use crate::types::Monotonic;

/// How many pictures may be on their way behind the gap that was seen: the one that lost its end, the one that lost its begin, and one that
/// the parser holds.
const ON_THE_WAY: u32 = 3;
/// How long a key frame is waited for. Cameras send one every 1 to 10 s. A stream that never had one refreshes its pictures bit by bit,
/// and is whole by then.
pub(super) const KEY_WAIT: Duration = Duration::from_secs(20);
/// How often losses are told.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Formats whose pictures build on others, and whose parsers or depayloaders say which do.
const GATED: [&str; 6] = ["video/x-h264", "video/x-h265", "video/mpeg", "video/x-vp8", "video/x-vp9", "video/x-av1"];

/// What the streaming threads of one try know.
#[derive(Debug, Default)]
struct State {
    /// Since when no key frame came that is needed.
    waits_since: Option<Monotonic>,
    /// When a picture was passed over last.
    passed_over_at: Option<Monotonic>,
    /// Whether a key frame was let through.
    had_key: bool,
    /// Since when the decoder calls everything corrupt.
    corrupt_since: Option<Monotonic>,
    /// Losses that were told, and when.
    told: u64,
    told_at: Option<Monotonic>,
}

/// One pipeline's pictures.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    state: Arc<Mutex<State>>,
    /// Gaps in the packets' numbers.
    losses: Arc<AtomicU64>,
}

/// The pictures of one parser.
#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    /// Gaps that it knows of.
    losses: u64,
    /// Pictures that may be damaged whatever they are.
    doubtful: u32,
}

impl Gate {
    /// Whether a picture may be decoded: a key frame, or one behind such. `losses` are those so far.
    fn lets_through(&mut self, is_key: bool, losses: u64) -> bool {
        if losses != self.losses {
            self.losses = losses;
            self.is_open = false;
            self.doubtful = ON_THE_WAY;
        }
        if self.doubtful > 0 {
            self.doubtful -= 1;
            return false;
        }
        self.is_open |= is_key;
        self.is_open
    }
}

impl Whole {
    /// Watches the elements of a pipeline, those that it has and those that come to it.
    pub(super) fn watch(pipeline: &gst::Pipeline) -> Self {
        let whole = Self::default();
        for element in pipeline.iterate_recurse().into_iter().flatten() {
            whole.look_at(&element);
        }
        let ours = whole.clone();
        pipeline.connect_deep_element_added(move |_, _, element| ours.look_at(element));
        whole
    }

    fn look_at(&self, element: &gst::Element) {
        let class = element.factory().and_then(|factory| factory.metadata("klass").map(str::to_owned)).unwrap_or_default();
        let is_depayloader = class.contains("Depayloader");
        if is_depayloader && let Some(pad) = element.static_pad("sink") {
            self.count_losses(&pad);
        }
        if (is_depayloader || class.contains("Parser"))
            && let Some(pad) = element.static_pad("src")
        {
            self.gate(&pad, is_depayloader);
        }
    }

    fn count_losses(&self, pad: &gst::Pad) {
        let (losses, last) = (self.losses.clone(), Mutex::new(None));
        let count = move |packet: &gst::BufferRef| {
            let mut head = [0; 4];
            if packet.copy_to_slice(0, &mut head).is_err() {
                return;
            }
            // RFC 3550, section 5.1.
            let number = u16::from_be_bytes([head[2], head[3]]);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last: u16| number != last.wrapping_add(1)) {
                losses.fetch_add(1, Ordering::AcqRel);
            }
            *last = Some(number);
        };
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(packet)) => count(packet),
                Some(gst::PadProbeData::BufferList(packets)) => packets.iter().for_each(&count),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Lets pictures through a pad. Of a depayloader's these are only those that no parser follows.
    fn gate(&self, pad: &gst::Pad, is_depayloader: bool) {
        let (whole, gate) = (self.clone(), Mutex::new(Gate::default()));
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let Some(gst::PadProbeData::Buffer(unit)) = &info.data else { return gst::PadProbeReturn::Ok };
            let caps = pad.current_caps();
            let format = caps.as_ref().and_then(|caps| caps.structure(0)).map_or("", |structure| structure.name().as_str());
            if !GATED.contains(&format) || is_depayloader && format != "video/x-vp8" {
                return gst::PadProbeReturn::Ok;
            }
            let is_key = !unit.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
            let is_let = gate.lets_through(is_key, whole.losses.load(Ordering::Acquire));
            if whole.note(is_let, clock::monotonic()) { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
        });
    }

    /// Notes what became of a picture; gives whether it is to be decoded.
    fn note(&self, is_let: bool, now: Monotonic) -> bool {
        let mut state = self.lock();
        if is_let {
            state.had_key = true;
            state.waits_since = None;
            return true;
        }
        let since = *state.waits_since.get_or_insert(now);
        if !state.had_key && now.since(since) >= KEY_WAIT {
            return true;
        }
        state.passed_over_at = Some(now);
        false
    }

    /// Whether a decoded picture may be looked at. A decoder that calls everything corrupt is believed for a while only.
    pub(super) fn takes(&self, picture: &gst::BufferRef, now: Monotonic) -> bool {
        let mut state = self.lock();
        if !picture.flags().contains(gst::BufferFlags::CORRUPTED) {
            state.corrupt_since = None;
            return true;
        }
        let since = *state.corrupt_since.get_or_insert(now);
        if now.since(since) >= KEY_WAIT {
            return true;
        }
        state.passed_over_at = Some(now);
        false
    }

    /// When pictures came that were passed over, last.
    pub(super) fn passed_over_at(&self) -> Option<Monotonic> {
        self.lock().passed_over_at
    }

    /// Whether a key frame is overdue.
    pub(super) fn waits_too_long(&self, now: Monotonic) -> bool {
        let state = self.lock();
        state.had_key && state.waits_since.is_some_and(|since| now.since(since) >= KEY_WAIT)
    }

    /// How many gaps there were since they were told last, where that is to be told again.
    pub(super) fn untold_losses(&self, now: Monotonic) -> Option<u64> {
        let losses = self.losses.load(Ordering::Acquire);
        let mut state = self.lock();
        if losses == state.told || state.told_at.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return None;
        }
        let untold = losses - state.told;
        (state.told, state.told_at) = (losses, Some(now));
        Some(untold)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_before_a_key_frame_and_from_a_loss_to_the_next_whole_one() {
        let mut gate = Gate::default();
        let passed: Vec<bool> = [
            (false, 0),
            (true, 0),
            (false, 0),
            // The gap may be in this very key frame, or in the one that the parser held.
            (true, 1),
            (false, 1),
            (true, 1),
            (false, 1),
            (true, 1),
            (false, 1),
            (false, 2),
            (false, 3),
            (false, 3),
            (false, 3),
            (true, 3),
        ]
        .into_iter()
        .map(|(is_key, losses)| gate.lets_through(is_key, losses))
        .collect();
        let t = true;
        let f = false;
        assert_eq!(passed, [f, t, t, f, f, f, f, t, t, f, f, f, f, t]);
    }

    #[test]
    fn a_stream_without_key_frames_is_taken_after_a_while_and_one_that_lost_them_is_told() {
        let at = |s: u64| Monotonic(s * 1_000_000_000);
        let never = Whole::default();
        assert!(!never.note(false, at(1)) && !never.note(false, at(20)) && never.note(false, at(21)));
        assert!(!never.waits_too_long(at(60)));
        let once = Whole::default();
        assert!(once.note(true, at(1)) && !once.note(false, at(2)) && !once.note(false, at(40)));
        assert!(!once.waits_too_long(at(3)) && once.waits_too_long(at(22)));
        assert_eq!(once.passed_over_at(), Some(at(40)));
        assert!(once.note(true, at(41)) && !once.waits_too_long(at(90)));
    }

    #[test]
    fn what_a_decoder_calls_corrupt_is_passed_over_unless_everything_is() {
        gst::init().unwrap();
        let at = |s: u64| Monotonic(s * 1_000_000_000);
        let whole = Whole::default();
        let mut corrupt = gst::Buffer::new();
        corrupt.get_mut().unwrap().set_flags(gst::BufferFlags::CORRUPTED);
        assert!(whole.takes(&gst::Buffer::new(), at(1)) && !whole.takes(&corrupt, at(2)) && !whole.takes(&corrupt, at(21)));
        assert!(whole.takes(&corrupt, at(22)));
        assert!(whole.takes(&gst::Buffer::new(), at(23)) && !whole.takes(&corrupt, at(24)));
    }

    #[test]
    fn losses_are_told_now_and_then() {
        let at = |s: u64| Monotonic(s * 1_000_000_000);
        let whole = Whole::default();
        assert_eq!(whole.untold_losses(at(1)), None);
        whole.losses.store(3, Ordering::Release);
        assert_eq!(whole.untold_losses(at(2)), Some(3));
        whole.losses.store(10, Ordering::Release);
        assert_eq!((whole.untold_losses(at(30)), whole.untold_losses(at(62))), (None, Some(7)));
    }
}
