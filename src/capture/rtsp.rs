//! An RTSP camera's source: what `rtspsrc` is told, who the camera is believed to be, and what keeps its password from being sent in the
//! clear.
//!
//! With `rtsps://` the camera shows a certificate. With `fingerprint` it must be that very one, whoever vouches for another; else an
//! authority must vouch for it and it must be made out to this host: one of `ca-file` alone, where that is set, or one that this system
//! knows (`rtsp_trust.rs`). Otherwise there is no connection, and the reason is told. With `rtsp://` whoever answers is believed: then
//! a password goes to another machine by Digest alone, no other host is gone to and no long answer is taken ([`Guard`]). What any server may
//! ask before it plays is bounded ([`Bounds`]).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gio::prelude::*;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use sha2::{Digest, Sha256};

use super::CaptureError;
use super::redact::{self, PLACEHOLDER, Place, Redactor};
use super::rtsp_bounds::Bounds;
use super::rtsp_guard::Guard;
use super::rtsp_trust;
use super::settings::{CameraSettings, RtspSource, Transport, fingerprint_bytes};
use crate::system::secret;

/// How long connecting, and each answer of an RTSP server, may take: a host that drops packets must not hold a try so long that
/// its return is missed.
const RTSP_ANSWER_MS: u64 = 3000;
/// The ports of the two schemes where the address names none.
const PORTS: [(&str, u16); 2] = [("rtsp", 554), ("rtsps", 322)];

/// What was noticed on the way to the camera that GStreamer's own error does not say.
#[derive(Default)]
pub(super) struct Way {
    certificate: Arc<Mutex<Option<String>>>,
    guard: Option<Guard>,
    bounds: Bounds,
    asked: Option<Asked>,
}

/// What an RTSP server was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) transport: Transport,
    pub(super) has_login: bool,
    /// Where it is.
    pub(super) host: String,
    pub(super) port: u16,
    /// Which of the videos that it describes.
    pub(super) video: u32,
    /// The numbers of the videos that it describes.
    videos: Arc<Mutex<Vec<u32>>>,
}

impl Asked {
    /// How many videos it describes.
    pub(super) fn videos(&self) -> u32 {
        u32::try_from(self.videos.lock().unwrap_or_else(PoisonError::into_inner).len()).unwrap_or(u32::MAX)
    }
}

impl Way {
    /// What was asked for, of an RTSP server.
    pub(super) fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    /// Why there is no connection, where that is known better than from GStreamer's error.
    pub(super) fn reason(&self, place: &str) -> Option<String> {
        if let Some(why) = self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Some(format!("{place} is not believed to be the camera: {why}"));
        }
        if let Some(why) = self.bounds.reason() {
            return Some(format!("{place} is left: {why}"));
        }
        let guard = self.guard.as_ref()?;
        if guard.has_refused() {
            return Some(format!(
                "{place} asks for the password in the clear (Basic authentication), and it was not sent: use rtsps://, or set the camera to Digest authentication"
            ));
        }
        guard.problem().map(|problem| format!("{place} cannot be opened: {problem}"))
    }
}

/// Whether GLib can do TLS here at all: it needs the package glib-networking.
pub(super) fn has_tls() -> bool {
    gio::TlsBackend::default().supports_tls()
}

/// The element, and the way that it takes. The password is read anew.
pub(super) fn source(
    settings: &CameraSettings,
    source: &RtspSource,
    secrets: &Path,
    redactor: &mut Redactor,
) -> Result<(gst::Element, Way), CaptureError> {
    let bad = |reason: String| CaptureError::BadSource { camera: settings.id.clone(), reason };
    let element = super::pipelines::make("rtspsrc")?;
    element.set_property_from_str("protocols", if source.transport == Transport::Tcp { "tcp" } else { "udp" });
    element.set_property("latency", source.latency_ms);
    element.set_property("tcp-timeout", RTSP_ANSWER_MS * 1000);
    element.set_property("timeout", u64::from(settings.stall_timeout_ms) * 1000);
    let url = source.url.expose();
    redactor.add_address(url);
    let mut way = Way { bounds: Bounds::on(&element), ..Way::default() };
    let password = match &source.password_secret {
        None => None,
        Some(name) => {
            let failed = |source| CaptureError::Secret { camera: settings.id.clone(), source };
            let password = secret::read_line(name, secrets).map_err(failed)?;
            redactor.add(&password);
            Some(password)
        }
    };
    match password.as_ref().filter(|_| source.url.wants_password()) {
        Some(password) => element.set_property("location", url.replace(PLACEHOLDER, &redact::percent_encoded(password))),
        None => element.set_property("location", url),
    }
    if let Some(user) = &source.user {
        element.set_property("user-id", user);
        if let Some(password) = &password {
            element.set_property("user-pw", password.as_str());
        }
    }
    let videos = Arc::<Mutex<Vec<u32>>>::default();
    if let Some(Place { scheme, host, port }) = Place::of(url) {
        let usual = PORTS.iter().find(|(known, _)| *known == scheme).map_or(554, |(_, port)| *port);
        let port = port.unwrap_or(usual);
        if source.url.is_anybodys() {
            let guard = Guard::start(host, port).map_err(|error| bad(format!("no guard for it: {error}")))?;
            element.set_property("proxy", format!("http://{}", guard.address()));
            way.guard = Some(guard);
        }
        way.asked = Some(Asked {
            transport: source.transport,
            has_login: source.user.is_some() || source.password_secret.is_some(),
            host: host.to_owned(),
            port,
            video: source.video,
            videos: videos.clone(),
        });
    }
    if source.url.scheme() == Some("rtsps") {
        if !has_tls() {
            return Err(bad("rtsps:// needs TLS for GLib: install glib-networking".to_owned()));
        }
        let system = rtsp_trust::those_of_the_system().map_err(bad)?;
        match (&source.fingerprint, &source.ca_file) {
            // No authority is asked: what is pinned is judged by itself.
            (Some(_), _) => {}
            (None, Some(path)) => {
                let database =
                    gio::TlsFileDatabase::new(path).map_err(|error| bad(format!("{}: {}", path.display(), error.message())))?;
                element.set_property("tls-database", database.upcast_ref::<gio::TlsDatabase>());
            }
            (None, None) => element.set_property("tls-database", &system),
        }
        judge_certificate(&element, source, way.certificate.clone());
    }
    // Of several videos (main and sub stream) one alone is asked for: which of them came first would be chance.
    let (camera, wanted) = (settings.id.clone(), source.video);
    element.connect("select-stream", false, move |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let media = caps.as_ref().and_then(|caps| caps.structure(0)).and_then(|s| s.get::<&str>("media").ok());
        let number = values.get(1).and_then(|value| value.get::<u32>().ok());
        let Some(number) = number.filter(|_| media == Some("video")) else { return Some(false.to_value()) };
        let mut videos = videos.lock().unwrap_or_else(PoisonError::into_inner);
        // A stream may be asked about twice.
        let place = videos.iter().position(|known| *known == number).unwrap_or_else(|| {
            videos.push(number);
            videos.len() - 1
        });
        if place == 1 {
            log::info!(
                "camera {camera}: it describes more than one video: number {wanted} is taken, counted from 0; `rtsp.video` chooses"
            );
        }
        Some((u32::try_from(place) == Ok(wanted)).to_value())
    });
    Ok((element, way))
}

/// Has the last word on a certificate for which no authority vouches that the element may believe: only the very one that is pinned is
/// believed. A camera that is pinned has no authority, so this is asked of each of its certificates.
fn judge_certificate(element: &gst::Element, source: &RtspSource, told: Arc<Mutex<Option<String>>>) {
    let pinned = source.fingerprint.as_deref().and_then(fingerprint_bytes);
    element.connect("accept-certificate", false, move |values| {
        let certificate = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let flags = values.get(3).and_then(|value| value.get::<gio::TlsCertificateFlags>().ok());
        let der = certificate.and_then(|certificate| certificate.property::<Option<glib::ByteArray>>("certificate"));
        let shown: Option<[u8; 32]> = der.map(|der| Sha256::digest(&der[..]).into());
        let is_pinned = shown.is_some() && shown == pinned;
        let why = (!is_pinned).then(|| why_not(flags.unwrap_or(gio::TlsCertificateFlags::all()), shown, pinned.is_some()));
        *told.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Some(is_pinned.to_value())
    });
}

fn why_not(flags: gio::TlsCertificateFlags, shown: Option<[u8; 32]>, is_pinned: bool) -> String {
    use gio::TlsCertificateFlags as Flags;
    let shown = shown.map_or("unknown".to_owned(), |shown| shown.map(|byte| format!("{byte:02X}")).join(":"));
    if is_pinned {
        return format!("its certificate is not the one of `fingerprint`; its SHA-256 is {shown}");
    }
    let causes = [
        (Flags::UNKNOWN_CA, "no known authority has signed it (name the authority's certificate in `ca-file`)"),
        (Flags::BAD_IDENTITY, "it is made out to another name or address"),
        (Flags::NOT_ACTIVATED, "its time has not come: compare its dates with this device's clock"),
        (Flags::EXPIRED, "its time is over: renew it, or set this device's clock"),
        (Flags::REVOKED, "it was revoked"),
        (Flags::INSECURE, "its algorithm is too weak"),
    ];
    let causes: Vec<&str> = causes.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, cause)| *cause).collect();
    let cause = if causes.is_empty() { "it cannot be checked".to_owned() } else { causes.join(", and ") };
    format!("its certificate is refused: {cause}. If it is the camera's own, pin it: fingerprint = \"{shown}\"")
}
