//! What an RTSP server may ask of us before it plays. GStreamer follows redirects for as long as they come and makes a stream of each media
//! section that a description has; whoever answers at a camera's address would choose how busy and how large this process gets.
//!
//! The bounds of one try stand here: how many requests are made, and how much a description may hold. What goes beyond ends the try with
//! its reason, and the usual wait comes before the next.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::ToGlibPtr;
use gstreamer::prelude::*;
use gstreamer_sdp as gst_sdp;
use gstreamer_sdp::ffi;

/// The most requests of one try. A camera takes about six; with a login, two streams, and UDP given up for TCP it is twenty. A redirect
/// costs two, so some ten of them are followed. Keeping a session alive does not count.
const MOST_REQUESTS: u32 = 32;
/// The most media sections of a description. Cameras have two to four: pictures, sound, sound back, what is seen.
const MOST_MEDIA: u32 = 16;
/// The most attributes, formats and other lines of a description, all sections together. Cameras have ten to thirty.
const MOST_LINES: u32 = 512;
/// The most bytes in attributes. The longest are a stream's parameter sets, a few hundred.
const MOST_BYTES: usize = 32 * 1024;
/// Has the server name a clock on any machine, which GStreamer then asks for the time. No camera's time counts here.
const CLOCK: &[u8] = b"x-gst-clock";

/// Why a try was ended here, if it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds(Arc<Mutex<Option<String>>>);

impl Bounds {
    /// Has `element`, an `rtspsrc`, keep to the bounds.
    pub(super) fn on(element: &gst::Element) -> Self {
        let bounds = Self::default();
        let (ours, requests) = (bounds.clone(), AtomicU32::new(0));
        element.connect("before-send", false, move |values| {
            let is_too_many = requests.fetch_add(1, Ordering::Relaxed) >= MOST_REQUESTS;
            if is_too_many {
                ours.end(
                    values,
                    format!("{MOST_REQUESTS} requests were made and it does not play: it sends from one address to the next"),
                );
            }
            Some((!is_too_many).to_value())
        });
        let ours = bounds.clone();
        element.connect("on-sdp", false, move |values| {
            if let Some(why) = values.get(1).and_then(refuse) {
                ours.end(values, why);
            }
            None
        });
        bounds
    }

    /// Why the try was ended.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&self, values: &[glib::Value], why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        // Whoever watches the pipeline hears it and takes it down.
        if let Some(element) = values.first().and_then(|value| value.get::<gst::Element>().ok()) {
            gst::element_error!(element, gst::ResourceError::OpenRead, ("it goes beyond what a camera may ask"));
        }
    }
}

/// How much a description holds.
#[derive(Debug, Default)]
struct Sizes {
    media: u32,
    /// Attributes, formats, bandwidths and connections, of all sections together.
    lines: u32,
    /// In attributes.
    bytes: usize,
    names_clock: bool,
}

impl Sizes {
    fn is_too_long(&self) -> bool {
        self.media > MOST_MEDIA || self.lines > MOST_LINES || self.bytes > MOST_BYTES
    }

    /// Why it is not followed; `None` where it is.
    fn why_refused(&self) -> Option<String> {
        if self.media > MOST_MEDIA {
            Some(format!("it describes {} media streams; {MOST_MEDIA} are the most", self.media))
        } else if self.is_too_long() {
            Some(format!("its description is too long: {MOST_LINES} lines and {MOST_BYTES} bytes are the most"))
        } else {
            self.names_clock.then(|| "it names a clock to follow, and no camera's clock is followed".to_owned())
        }
    }
}

/// Looks at the description that a signal brings. One that is not followed is emptied, so that no stream is made of it.
#[expect(
    unsafe_code,
    reason = "the bindings cannot change the description that a signal brings, and panic at text that is not UTF-8"
)]
fn refuse(value: &glib::Value) -> Option<String> {
    if value.type_() != gst_sdp::SDPMessage::static_type() {
        return None;
    }
    // SAFETY: the value is of the boxed type GstSDPMessage, as was just seen, and holds a pointer to one or null. `on-sdp` is there to let
    // the description be changed: it is the caller's own, nobody else has it while the signal is out, and no reference of ours outlives
    // `measure`. `uninit` frees and clears every field, and `init` makes an empty description of what it left.
    unsafe {
        let message = glib::gobject_ffi::g_value_get_boxed(value.to_glib_none().0).cast::<ffi::GstSDPMessage>();
        if message.is_null() {
            return None;
        }
        let why = measure(message).why_refused()?;
        ffi::gst_sdp_message_uninit(message);
        ffi::gst_sdp_message_init(message);
        Some(why)
    }
}

/// Counts until there is too much.
///
/// # Safety
/// `message` points to a description that nobody changes meanwhile.
#[expect(unsafe_code, reason = "the bindings panic at text that is not UTF-8")]
unsafe fn measure(message: *const ffi::GstSDPMessage) -> Sizes {
    let mut sizes = Sizes::default();
    // SAFETY: the caller's word. Indexes stay below the lengths that the same library tells, what it gives for them is null or lives as
    // long as the description, and its texts are null or end with a zero byte.
    unsafe {
        sizes.media = ffi::gst_sdp_message_medias_len(message);
        sizes.lines = ffi::gst_sdp_message_attributes_len(message);
        for index in 0..sizes.lines {
            if sizes.is_too_long() {
                return sizes;
            }
            sizes.take(ffi::gst_sdp_message_get_attribute(message, index));
        }
        for index in 0..sizes.media {
            let media = ffi::gst_sdp_message_get_media(message, index);
            if media.is_null() || sizes.is_too_long() {
                return sizes;
            }
            let attributes = ffi::gst_sdp_media_attributes_len(media);
            let others = [
                ffi::gst_sdp_media_formats_len(media),
                ffi::gst_sdp_media_bandwidths_len(media),
                ffi::gst_sdp_media_connections_len(media),
            ];
            sizes.lines = others.into_iter().fold(sizes.lines.saturating_add(attributes), u32::saturating_add);
            for index in 0..attributes {
                if sizes.is_too_long() {
                    return sizes;
                }
                sizes.take(ffi::gst_sdp_media_get_attribute(media, index));
            }
        }
    }
    sizes
}

impl Sizes {
    /// # Safety
    /// `attribute` is null or points to one whose texts are null or end with a zero byte.
    #[expect(unsafe_code, reason = "the bindings panic at text that is not UTF-8")]
    unsafe fn take(&mut self, attribute: *const ffi::GstSDPAttribute) {
        // SAFETY: the caller's word.
        unsafe {
            let Some(attribute) = attribute.as_ref() else { return };
            let text = |text: *const std::ffi::c_char| if text.is_null() { &[][..] } else { CStr::from_ptr(text).to_bytes() };
            self.bytes = self.bytes.saturating_add(text(attribute.key).len()).saturating_add(text(attribute.value).len());
            self.names_clock |= text(attribute.key) == CLOCK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why it is refused, and how many streams are left of it.
    fn refused(text: &[u8]) -> (Option<String>, u32) {
        gst::init().unwrap();
        let value = gst_sdp::SDPMessage::parse_buffer(text).unwrap().to_value();
        let why = refuse(&value);
        (why, value.get::<&gst_sdp::SDPMessage>().unwrap().medias_len())
    }

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\na=range:npt=now-\r\n";
    const VIDEO: &str = "m=video 0 RTP/AVP 96\r\nb=AS:5000\r\na=control:trackID=1\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;\
        profile-level-id=640028;sprop-parameter-sets=Z2QAKK2EBUViuKxUdCAqKxXFYqOhAVFYrisVHQgKisVxWKjoQFRWK4rFR0ICorFcVio6ECSFITk8nyfk/k/J8nm5s00IEkKQnJ5Pk/J/J+T5PNzZprQCgC3YCqQAAAMABAAAAwDwvAQAAAA=,aO48sA==\r\n";

    #[test]
    fn what_cameras_describe_is_followed_and_what_only_costs_is_not() {
        let sound = "m=audio 0 RTP/AVP 0 8\r\na=control:trackID=2\r\na=rtpmap:0 PCMU/8000\r\na=recvonly\r\n";
        assert_eq!(refused(format!("{HEAD}{VIDEO}{sound}").as_bytes()), (None, 2));
        assert_eq!(refused(format!("{HEAD}{}", VIDEO.repeat(16)).as_bytes()), (None, 16));
        // No text at all, and nobody's panic.
        let strange = [HEAD.as_bytes(), b"a=\xff\xfe:\x80\r\n", VIDEO.as_bytes(), b"a=\xc3:\xff\r\n"].concat();
        assert_eq!(refused(&strange), (None, 1));
        let clock = format!("{HEAD}a=x-gst-clock:GstNetTimeProvider x 192.0.2.1:7 0\r\n{VIDEO}");
        let attributes = |length: usize, count: usize| format!("a={}\r\n", "x".repeat(length)).repeat(count);
        let formats = format!("m=video 0 RTP/AVP{}\r\n", " 96".repeat(20_000));
        for (text, why) in [
            (format!("{HEAD}{}", "m=video 0 RTP/AVP 96\r\n".repeat(17)), "17 media streams"),
            (format!("{HEAD}{}", "m=video 0 RTP/AVP 96\r\n".repeat(20_000)), "20000 media streams"),
            (format!("{HEAD}{}{VIDEO}", attributes(1, 600)), "too long"),
            (format!("{HEAD}{VIDEO}{}", attributes(1, 600)), "too long"),
            // GStreamer itself cuts a line at 16 KiB.
            (format!("{HEAD}{VIDEO}{}", attributes(10_000, 5)), "too long"),
            (format!("{HEAD}{formats}"), "too long"),
            (clock, "no camera's clock is followed"),
        ] {
            let (reason, left) = refused(text.as_bytes());
            assert_eq!(left, 0, "{why}");
            assert!(reason.as_ref().is_some_and(|reason| reason.contains(why)), "{why}: {reason:?}");
        }
    }
}
