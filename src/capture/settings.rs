//! What the config says about a camera.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::motion::MotionSettings;
use super::redact;
use crate::types::CameraId;
use crate::types::frame::MAX_SIDE;

/// The longest back-off, in milliseconds: with it a source that returns is back within 5 s.
pub const MAX_RETRY_MS: u32 = 4000;

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CameraSettings {
    /// The camera's name in topics and logs.
    pub id: CameraId,
    /// Where its frames come from.
    pub source: Source,
    /// `auto` decodes and converts on the accelerator where the plugins are there; `software` never does.
    #[serde(default)]
    pub hardware: Hardware,
    /// Without a frame for this long the camera counts as stalled and is connected anew; 500 to 60000.
    #[serde(default = "defaults::stall_timeout_ms")]
    pub stall_timeout_ms: u32,
    /// The first wait before a lost source is tried again; 50 to 4000. It doubles with each failure.
    #[serde(default = "defaults::retry_min_ms")]
    pub retry_min_ms: u32,
    /// The longest wait before a lost source is tried again; up to 4000.
    #[serde(default = "defaults::retry_max_ms")]
    pub retry_max_ms: u32,
    /// A picture of which but a twentieth is brighter than this (0 black, 255 white) for a second is dark; 0 switches it off.
    #[serde(default = "defaults::dark_luma")]
    pub dark_luma: u8,
    /// A picture whose luma deviates by less than this for a second shows nothing (a covered lens); 0 switches it off.
    #[serde(default = "defaults::flat_luma_deviation")]
    pub flat_luma_deviation: u8,
    /// By how many degrees pictures are turned clockwise, of a camera that is mounted on its side or its head: 0, 90, 180 or 270. For
    /// `launch`, `images` and depth there is `videoflip` in the pipeline, or a picture that is turned before.
    #[serde(default)]
    pub turn: u16,
    /// The shape of a pixel, its width to its height, `"2:1"` for example, of a recorder that sends pictures of pixels that are not square
    /// and does not say so. Without it the shape is what the stream says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_aspect: Option<PixelAspect>,
    /// Which frames are worth a look.
    #[serde(default)]
    pub motion: MotionSettings,
}

/// The shape of a pixel, its width to its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PixelAspect {
    /// How wide, 1 to 64.
    pub width: u16,
    /// How high, 1 to 64.
    pub height: u16,
}

impl TryFrom<String> for PixelAspect {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let side = |text: &str| text.parse::<u16>().ok().filter(|side| (1..=64).contains(side));
        let shape = text.split_once(':').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        // Pixels that are more than four times as wide as high, or the other way, are a slip of the pen.
        let shape = shape.filter(|(width, height)| *width <= 4 * height && *height <= 4 * width);
        let (width, height) =
            shape.ok_or_else(|| format!("`{text}` is no shape of a pixel: give WIDTH:HEIGHT, `2:1` for example"))?;
        Ok(Self { width, height })
    }
}

impl From<PixelAspect> for String {
    fn from(shape: PixelAspect) -> Self {
        format!("{}:{}", shape.width, shape.height)
    }
}

mod defaults {
    pub(super) fn stall_timeout_ms() -> u32 {
        5000
    }
    pub(super) fn retry_min_ms() -> u32 {
        250
    }
    pub(super) fn retry_max_ms() -> u32 {
        2000
    }
    pub(super) fn dark_luma() -> u8 {
        12
    }
    pub(super) fn flat_luma_deviation() -> u8 {
        3
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn latency_ms() -> u32 {
        100
    }
    pub(super) fn device() -> std::path::PathBuf {
        "/dev/video0".into()
    }
    pub(super) fn width() -> u32 {
        1280
    }
    pub(super) fn height() -> u32 {
        720
    }
    pub(super) fn fps() -> u32 {
        30
    }
}

/// Where frames come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Source {
    /// A video file.
    File(FileSource),
    /// A network camera.
    Rtsp(RtspSource),
    /// A USB or other Video4Linux camera.
    V4l2(V4l2Source),
    /// A camera on a Jetson's CSI connector, through `nvarguscamerasrc`.
    Csi(CsiSource),
    /// A pipeline of the site's own.
    Launch(LaunchSource),
    /// Still pictures; works without GStreamer.
    Images(ImagesSource),
}

/// A video file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// Whether to begin again at its end.
    #[serde(default, rename = "loop")]
    pub repeat: bool,
    /// Whether to play at the file's own speed, as a camera would (frames nobody takes are lost). Otherwise every frame waits until it
    /// is taken and none is lost, as fast as the reader is.
    #[serde(default = "defaults::yes")]
    pub paced: bool,
}

/// A network camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RtspSource {
    /// `rtsps://host[:port]/path` or `rtsp://…`, without user and password. With `rtsp://` nobody knows who answers: whoever gets at the
    /// camera's cable can play a recording. `{password}` stands for the secret's text, for cameras that want it in the address.
    pub url: StreamUrl,
    /// How the pictures travel. TCP loses none; UDP is for cameras that know nothing else, and goes beside the TLS of `rtsps://`.
    #[serde(default)]
    pub transport: Transport,
    /// The user's name at the camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name of the secret that holds the password: a systemd credential or a file of mode 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<String>,
    /// For `rtsps://`: the certificates (PEM) of the authority that signed the camera's. No other is believed then, not those that this
    /// system knows either, which are believed without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// For `rtsps://`: the SHA-256 of the camera's own certificate, as `openssl x509 -noout -fingerprint -sha256` prints it, for a camera
    /// that signed it itself. It is believed whatever name and time it is made out for, and no other one is, whoever has signed it
    /// (`ca-file` included).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How long packets wait for late ones before decoding; 0 to 5000.
    #[serde(default = "defaults::latency_ms")]
    pub latency_ms: u32,
    /// Which video is taken where the camera describes several at one address, its main and its sub stream for example: 0 is the first;
    /// up to 15.
    #[serde(default)]
    pub video: u32,
}

/// How an RTSP camera's packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Inside the RTSP connection.
    #[default]
    Tcp,
    /// As datagrams beside it.
    Udp,
}

/// A Video4Linux camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct V4l2Source {
    /// The device file.
    #[serde(default = "defaults::device")]
    pub device: PathBuf,
    /// Pixels in a row.
    #[serde(default = "defaults::width")]
    pub width: u32,
    /// Rows.
    #[serde(default = "defaults::height")]
    pub height: u32,
    /// Frames per second.
    #[serde(default = "defaults::fps")]
    pub fps: u32,
}

/// A camera on a Jetson's CSI connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CsiSource {
    /// Which sensor.
    #[serde(default)]
    pub sensor_id: u32,
    /// Pixels in a row.
    #[serde(default = "defaults::width")]
    pub width: u32,
    /// Rows.
    #[serde(default = "defaults::height")]
    pub height: u32,
    /// Frames per second.
    #[serde(default = "defaults::fps")]
    pub fps: u32,
}

/// A pipeline of the site's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LaunchSource {
    /// As `gst-launch-1.0` takes it, ending in `appsink name=faceid` and giving I420, NV12, GRAY8 or RGB.
    pub pipeline: LaunchLine,
}

/// Still pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImagesSource {
    /// A picture, or a folder whose pictures are taken in the order of their names.
    pub path: PathBuf,
    /// Whether to begin again after the last.
    #[serde(default, rename = "loop")]
    pub repeat: bool,
    /// The pause after each picture; 0 goes on as soon as it is taken.
    #[serde(default)]
    pub interval_ms: u32,
}

/// Whether accelerators may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hardware {
    /// Where their plugins are there.
    #[default]
    Auto,
    /// Never.
    Software,
}

/// An address whose `Debug` and `Display` leave out user, password and query: an operator may have written a password there before
/// `check` refused it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamUrl(String);

impl StreamUrl {
    /// Takes the text as it is; [`CameraSettings::findings`] judges it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a password may stand in it: a user's, or a query.
    pub fn may_hold_secret(&self) -> bool {
        redact::without_user(&self.0) != self.0
    }

    /// The whole text, for the element that opens it and nothing else.
    #[cfg(feature = "gstreamer")]
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact::without_user(&self.0))
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamUrl({self})")
    }
}

/// A launch line, which may hold a password: its `Debug` tells its length.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchLine(String);

impl LaunchLine {
    /// Takes the text as it is; GStreamer judges it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The RTSP addresses in it.
    fn addresses(&self) -> impl Iterator<Item = StreamUrl> + '_ {
        let words = self.0.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        words.filter_map(|word| Some(StreamUrl::new(&word[word.find("rtsp://")?..])))
    }
}

impl fmt::Debug for LaunchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaunchLine({} bytes)", self.0.len())
    }
}

impl Source {
    /// The key of the config, and what a log line calls the source: no user, password or query.
    pub fn place(&self) -> String {
        match self {
            Source::File(source) => source.path.display().to_string(),
            Source::Rtsp(source) => source.url.to_string(),
            Source::V4l2(source) => source.device.display().to_string(),
            Source::Csi(source) => format!("CSI sensor {}", source.sensor_id),
            Source::Launch(_) => "the custom pipeline".to_owned(),
            Source::Images(source) => source.path.display().to_string(),
        }
    }

    /// The key that the source's address stands under.
    pub fn address_key(&self) -> &'static str {
        match self {
            Source::File(_) => "file.path",
            Source::Rtsp(_) => "rtsp.url",
            Source::V4l2(_) => "v4l2.device",
            Source::Csi(_) => "csi.sensor-id",
            Source::Launch(_) => "launch.pipeline",
            Source::Images(_) => "images.path",
        }
    }

    /// Whether anybody who answers at its address is believed to be the camera: rtsp:// beyond this machine, in a custom pipeline too, and
    /// rtsps:// whose pictures travel beside TLS.
    pub fn is_anybodys(&self) -> bool {
        match self {
            Source::Rtsp(source) => source.url.is_anybodys() || self.leaves_tls(),
            Source::Launch(source) => source.pipeline.addresses().any(|url| url.is_anybodys()),
            _ => false,
        }
    }

    /// Whether only the talk with the camera is in TLS and the pictures come as bare UDP packets, which anybody on the way can send.
    pub fn leaves_tls(&self) -> bool {
        matches!(self, Source::Rtsp(source) if source.transport == Transport::Udp && source.url.is_tls_beyond_loopback())
    }

    /// Whether whoever answers is told the camera's password, because the address has a place for it.
    pub fn tells_password(&self) -> bool {
        matches!(self, Source::Rtsp(source) if source.url.wants_password() || source.url.carries_password())
    }

    /// Whether a password stands in the config itself.
    pub fn carries_password(&self) -> bool {
        match self {
            Source::Rtsp(source) => source.url.carries_password(),
            Source::Launch(source) => redact::launch_line_carries_password(source.pipeline.expose()),
            _ => false,
        }
    }

    /// Whether the source ends by itself and is then done.
    pub fn is_played_once(&self) -> bool {
        match self {
            Source::File(source) => !source.repeat,
            Source::Images(source) => !source.repeat,
            _ => false,
        }
    }

    /// Whether every frame waits until it is taken, so that none is lost. The frames' times are then those of the file, counted from
    /// the start, and may lie ahead of the clock: who reads such a source takes the frame's time for now.
    pub fn is_lossless(&self) -> bool {
        match self {
            Source::File(source) => !source.paced,
            Source::Images(source) => source.interval_ms == 0,
            _ => false,
        }
    }
}

impl Default for CameraSettings {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the literal keeps the rule of identifiers; a test builds the default")]
        let id = CameraId::new("front").expect("a valid literal");
        Self {
            id,
            source: Source::V4l2(V4l2Source {
                device: defaults::device(),
                width: defaults::width(),
                height: defaults::height(),
                fps: defaults::fps(),
            }),
            hardware: Hardware::default(),
            stall_timeout_ms: defaults::stall_timeout_ms(),
            retry_min_ms: defaults::retry_min_ms(),
            retry_max_ms: defaults::retry_max_ms(),
            dark_luma: defaults::dark_luma(),
            flat_luma_deviation: defaults::flat_luma_deviation(),
            turn: 0,
            pixel_aspect: None,
            motion: MotionSettings::default(),
        }
    }
}

impl CameraSettings {
    /// A camera with this source and the defaults for all else.
    pub fn new(id: CameraId, source: Source) -> Self {
        Self { id, source, ..Self::default() }
    }

    /// [`CameraSettings::stall_timeout_ms`] as a duration.
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms.into())
    }

    /// What is out of range: the key below this camera, and what is wrong with it.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut wrong = |key: &str, text: String| found.push((key.to_owned(), text));
        if !(500..=60_000).contains(&self.stall_timeout_ms) {
            wrong("stall-timeout-ms", format!("is {}: give 500 to 60000", self.stall_timeout_ms));
        }
        if !(50..=MAX_RETRY_MS).contains(&self.retry_min_ms) {
            wrong("retry-min-ms", format!("is {}: give 50 to {MAX_RETRY_MS}", self.retry_min_ms));
        }
        if self.retry_max_ms > MAX_RETRY_MS || self.retry_max_ms < self.retry_min_ms {
            let text = "give retry-min-ms to 4000, or a source that returns is not back within 5 s";
            wrong("retry-max-ms", format!("is {}: {text}", self.retry_max_ms));
        }
        if ![0, 90, 180, 270].contains(&self.turn) {
            wrong("turn", format!("is {}: give 0, 90, 180 or 270", self.turn));
        }
        if matches!(self.source, Source::Launch(_) | Source::Images(_)) {
            let text = "is for the other kinds of sources: say it in the pipeline, or change the pictures";
            if self.turn != 0 {
                wrong("turn", text.to_owned());
            }
            if self.pixel_aspect.is_some() {
                wrong("pixel-aspect", text.to_owned());
            }
        }
        for (key, text) in self.source.findings() {
            wrong(&format!("source.{key}"), text);
        }
        for (key, text) in self.motion.findings() {
            wrong(&format!("motion.{key}"), text);
        }
        found
    }
}

impl Source {
    fn findings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut wrong = |key: &str, text: String| found.push((key.to_owned(), text));
        match self {
            Source::File(FileSource { path, .. }) if path.as_os_str().is_empty() => wrong("file.path", "is empty".to_owned()),
            Source::Images(ImagesSource { path, .. }) if path.as_os_str().is_empty() => wrong("images.path", "is empty".to_owned()),
            Source::File(_) | Source::Images(_) => {}
            Source::Rtsp(source) => {
                if let Some(text) = source.url.fault() {
                    wrong("rtsp.url", text);
                }
                if source.user.is_none() && source.password_secret.is_some() && !source.url.wants_password() {
                    wrong("rtsp.password-secret", "needs `user` beside it, or `{password}` in the address".to_owned());
                }
                if source.password_secret.is_none() && source.url.wants_password() {
                    wrong("rtsp.url", "has `{password}`: name its secret in `password-secret`".to_owned());
                }
                let is_tls = source.url.scheme() == Some("rtsps");
                for (key, is_set) in [("ca-file", source.ca_file.is_some()), ("fingerprint", source.fingerprint.is_some())] {
                    if is_set && !is_tls {
                        wrong(&format!("rtsp.{key}"), "is for rtsps:// alone: nothing else shows a certificate".to_owned());
                    }
                }
                if source.ca_file.as_ref().is_some_and(|path| !path.is_absolute()) {
                    wrong("rtsp.ca-file", "must be an absolute path".to_owned());
                }
                if source.fingerprint.as_deref().is_some_and(|text| fingerprint_bytes(text).is_none()) {
                    wrong("rtsp.fingerprint", "is no SHA-256: give 64 hexadecimal digits, with or without `:`".to_owned());
                }
                if source.video > 15 {
                    wrong("rtsp.video", format!("is {}: give 0 to 15", source.video));
                }
                if source.latency_ms > 5000 {
                    wrong("rtsp.latency-ms", format!("is {}: give 0 to 5000", source.latency_ms));
                }
            }
            Source::V4l2(source) => found.extend(size_findings("v4l2", source.width, source.height, source.fps)),
            Source::Csi(source) => found.extend(size_findings("csi", source.width, source.height, source.fps)),
            Source::Launch(source) => {
                let text = source.pipeline.expose();
                if !text.contains("appsink") || !text.contains("name=faceid") {
                    wrong("launch.pipeline", "has no `appsink name=faceid`: end the pipeline with it".to_owned());
                }
            }
        }
        found
    }
}

fn size_findings(kind: &str, width: u32, height: u32, fps: u32) -> Vec<(String, String)> {
    let limits = [("width", width, MAX_SIDE), ("height", height, MAX_SIDE), ("fps", fps, 240)];
    let outside = limits.into_iter().filter(|(_, value, limit)| !(1..=*limit).contains(value));
    outside.map(|(key, value, limit)| (format!("{kind}.{key}"), format!("is {value}: give 1 to {limit}"))).collect()
}

/// The 32 bytes of a fingerprint as it is written.
pub(super) fn fingerprint_bytes(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let digits = text.rsplit_once('=').map_or(text, |(_, digits)| digits);
    let digits: Vec<u32> = digits.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs: Vec<u8> = digits.chunks(2).map(|pair| u8::try_from(16 * pair[0] + *pair.get(1)?).ok()).collect::<Option<_>>()?;
    pairs.try_into().ok()
}

impl StreamUrl {
    /// `rtsp` or `rtsps`, where it is an address.
    pub fn scheme(&self) -> Option<&str> {
        redact::Place::of(&self.0).map(|place| place.scheme)
    }

    /// Whether whoever answers at the address is believed to be the camera: no TLS, and another machine.
    pub fn is_anybodys(&self) -> bool {
        redact::Place::of(&self.0).is_some_and(|place| place.scheme != "rtsps" && !redact::is_loopback(place.host))
    }

    fn is_tls_beyond_loopback(&self) -> bool {
        redact::Place::of(&self.0).is_some_and(|place| place.scheme == "rtsps" && !redact::is_loopback(place.host))
    }

    /// Whether it carries a password in the clear.
    pub fn carries_password(&self) -> bool {
        redact::carries_password(&self.0)
    }

    /// Whether it has a place for the password of `password-secret`.
    pub fn wants_password(&self) -> bool {
        self.0.contains(redact::PLACEHOLDER)
    }

    fn fault(&self) -> Option<String> {
        let rest = self.0.strip_prefix("rtsp://").or_else(|| self.0.strip_prefix("rtsps://"));
        let Some(rest) = rest else { return Some("is no rtsp:// or rtsps:// address".to_owned()) };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // A password with a slash in it ends the authority early, so the whole address is searched for the `@`.
        if authority.contains('@') || rest.contains('@') && rest.split('@').next().unwrap_or_default().contains(':') {
            return Some(
                "holds a user or password: give `user` and `password-secret` instead, and change that password".to_owned(),
            );
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Some("names no host".to_owned());
        }
        if self.0.contains(char::is_whitespace) {
            return Some("holds white space".to_owned());
        }
        let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
        if behind
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err())
        {
            return Some("names a port that is none: give 1 to 65535".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtsp(url: &str) -> CameraSettings {
        let text = format!("id = \"front\"\n[source.rtsp]\nurl = \"{url}\"\n");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_password_in_an_address_is_a_finding_and_is_shown_nowhere() {
        for url in ["rtsp://admin:hunter2@cam/1", "rtsp://admin:hun/ter2@cam/1", "rtsp://admin@cam/1"] {
            let settings = rtsp(url);
            let findings = settings.findings();
            assert_eq!(findings[0].0, "source.rtsp.url", "{url}");
            let shown = format!("{findings:?} {settings:?} {}", settings.source.place());
            assert!(!shown.contains("hun") && !shown.contains("ter2"), "{shown}");
        }
    }

    #[test]
    fn what_is_for_certificates_needs_tls_and_reads() {
        let keys = |text: &str| {
            let settings: CameraSettings = toml::from_str(&format!("id = \"a\"\n[source.rtsp]\n{text}\n")).unwrap();
            settings.findings().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let print = "AB:".repeat(31) + "cd";
        assert_eq!(keys(&format!("url = \"rtsps://cam/1\"\nfingerprint = \"{print}\"")), [""; 0]);
        assert_eq!(keys(&format!("url = \"rtsps://cam/1\"\nfingerprint = \"sha256 Fingerprint={print}\"")), [""; 0]);
        for wrong in ["", "ab", &print[3..], &(print.clone() + ":00"), &print.replace("cd", "xy"), &print.replace("cd", "c")] {
            assert_eq!(
                keys(&format!("url = \"rtsps://cam/1\"\nfingerprint = \"{wrong}\"")),
                ["source.rtsp.fingerprint"],
                "{wrong}"
            );
        }
        assert_eq!(keys(&format!("url = \"rtsp://cam/1\"\nfingerprint = \"{print}\"")), ["source.rtsp.fingerprint"]);
        assert_eq!(keys("url = \"rtsp://cam/1\"\nca-file = \"/a.pem\""), ["source.rtsp.ca-file"]);
        assert_eq!(keys("url = \"rtsps://cam/1\"\nca-file = \"a.pem\""), ["source.rtsp.ca-file"]);
        assert_eq!(keys("url = \"rtsp://cam/password={password}\""), ["source.rtsp.url"]);
    }

    #[test]
    fn a_camera_that_anybody_can_play_is_known() {
        for (url, expected) in [
            ("rtsp://192.0.2.7/1", true),
            ("rtsp://cam/1", true),
            ("rtsp://0.0.0.0/1", true),
            ("rtsps://192.0.2.7/1", false),
            ("rtsp://127.0.0.1:8554/1", false),
            ("rtsp://[::1]/1", false),
            ("rtsp://localhost/1", false),
        ] {
            assert_eq!(StreamUrl::new(url).is_anybodys(), expected, "{url}");
        }
    }

    #[test]
    fn values_out_of_range_are_found() {
        let mut settings = rtsp("http://cam/1");
        settings.stall_timeout_ms = 1;
        settings.retry_max_ms = 4001;
        settings.retry_min_ms = 0;
        let keys: Vec<String> = settings.findings().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["stall-timeout-ms", "retry-min-ms", "retry-max-ms", "source.rtsp.url"]);
        for text in ["[source.v4l2]\nfps = 0", "[source.csi]\nwidth = 9000", "[source.launch]\npipeline = \"videotestsrc\""] {
            let settings: CameraSettings = toml::from_str(&format!("id = \"a\"\n{text}\n")).unwrap();
            assert_eq!(settings.findings().len(), 1, "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_at_every_level() {
        for text in ["colour = 1\n[source.csi]", "[source.csi]\nsensor = 1", "[source.ftp]\nurl = \"a\"", "source = \"csi\""] {
            assert!(toml::from_str::<CameraSettings>(&format!("id = \"a\"\n{text}\n")).is_err(), "{text}");
        }
    }

    #[test]
    fn the_defaults_and_every_source_are_taken() {
        assert!(CameraSettings::default().findings().is_empty());
        for text in [
            "[source.file]\npath = \"a.mkv\"\nloop = true\npaced = false",
            "[source.rtsp]\nurl = \"rtsp://cam:554/1?a=b\"\ntransport = \"udp\"\nuser = \"u\"\npassword-secret = \"cam\"\nlatency-ms = 50",
            "[source.v4l2]",
            "[source.csi]\nsensor-id = 1",
            "[source.rtsp]\nurl = \"rtsps://cam/1\"\nca-file = \"/etc/faceid/cam.pem\"",
            "[source.rtsp]\nurl = \"rtsp://cam/user=a&password={password}\"\npassword-secret = \"cam\"",
            "[source.launch]\npipeline = \"videotestsrc ! appsink name=faceid\"",
            "[source.images]\npath = \"photos\"",
        ] {
            let settings: CameraSettings = toml::from_str(&format!("id = \"a\"\n{text}\n")).unwrap();
            assert_eq!(settings.findings(), [], "{text}");
            let again: CameraSettings = toml::from_str(&toml::to_string(&settings).unwrap()).unwrap();
            assert_eq!(again, settings);
        }
    }
}
