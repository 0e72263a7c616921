//! Why a source does not play, in words for the person who must mend it: what GStreamer says, and what it does not.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::redact::Redactor;
use super::rtsp::{Asked, Way};
use super::settings::Transport;

/// How long it may take to learn why a camera cannot be reached, finding its address included.
const REACH: Duration = Duration::from_secs(2);
/// The longest text of a server's that is told, in characters.
const LONGEST: usize = 80;

/// What a pipeline was when it failed.
pub(super) struct Failed<'a> {
    /// What the log calls the source.
    pub(super) place: &'a str,
    /// Frames that came before.
    pub(super) frames: u64,
    pub(super) way: &'a Way,
    /// What of GStreamer is missing, in its words.
    pub(super) missing: Option<&'a str>,
    pub(super) redactor: &'a Redactor,
}

impl Failed<'_> {
    /// GStreamer's error in words. The library's own text follows without secrets, where it says more.
    pub(super) fn reason(&self, error: &gst::message::Error) -> String {
        let place = self.place;
        if let Some(reason) = self.way.reason(place) {
            return reason;
        }
        if let Some(reason) = self.way.asked().and_then(|asked| self.reason_of_server(error, asked)) {
            return reason;
        }
        let error: glib::Error = error.error();
        let what = if let Some(kind) = error.kind::<gst::ResourceError>() {
            match kind {
                gst::ResourceError::NotFound => format!("{place} is not there"),
                gst::ResourceError::NotAuthorized => format!("{place} refuses the user or the password"),
                gst::ResourceError::Busy => format!("{place} is in use by another program"),
                gst::ResourceError::Settings => format!("{place} does not offer what is asked of it"),
                _ if self.frames > 0 => format!("the connection to {place} is lost"),
                _ => format!("{place} cannot be opened"),
            }
        } else if let Some(kind) = error.kind::<gst::StreamError>() {
            match kind {
                gst::StreamError::TypeNotFound | gst::StreamError::WrongType => format!("{place} is no video"),
                gst::StreamError::CodecNotFound => format!("{place} needs a decoder that is not installed"),
                _ if self.frames > 0 => format!("the stream of {place} is damaged after {} frames", self.frames),
                _ => format!("{place} holds no video that can be decoded: it is damaged or cut off"),
            }
        } else if error.kind::<gst::CoreError>() == Some(gst::CoreError::MissingPlugin) {
            format!("{place} needs a plugin that is not installed")
        } else {
            format!("{place} fails")
        };
        let said = self.missing.map_or_else(|| self.redactor.clean(error.message()), str::to_owned);
        format!("{what} ({})", said.trim_end_matches('.'))
    }

    /// What an RTSP server's answer means.
    fn reason_of_server(&self, error: &gst::message::Error, asked: &Asked) -> Option<String> {
        let place = self.place;
        if let Some((code, words)) = status(error) {
            let words: String = self.redactor.clean(&words).chars().take(LONGEST).collect();
            return match code {
                401 if !asked.has_login => Some(format!("{place} wants a user and a password: give `user` and `password-secret`")),
                // What is not there, and a login that is refused, GStreamer says well enough.
                401 | 404 => None,
                461 => Some(other_transport(place, asked)),
                453 | 503 => Some(format!("{place} has no room for another viewer: it answers {code} {words}")),
                _ => Some(format!("{place} answers {code} {words}")),
            };
        }
        let is_from_source = error
            .src()
            .and_then(|src| src.downcast_ref::<gst::Element>())
            .and_then(gst::Element::factory)
            .is_some_and(|factory| factory.name() == "rtspsrc");
        if !is_from_source {
            return None;
        }
        let error = error.error();
        if error.kind::<gst::StreamError>() == Some(gst::StreamError::CodecNotFound) {
            return Some(match asked.videos() {
                0 => format!("{place} holds no video: it describes sound or data alone"),
                videos if videos <= asked.video => {
                    format!("{place} describes {videos} videos, counted from 0: `video = {}` is none of them", asked.video)
                }
                _ => other_transport(place, asked),
            });
        }
        let is_unreached = matches!(
            error.kind::<gst::ResourceError>(),
            Some(gst::ResourceError::OpenRead | gst::ResourceError::OpenReadWrite | gst::ResourceError::OpenWrite)
        );
        if self.frames > 0 || !is_unreached {
            return None;
        }
        why_unreached(&asked.host, asked.port).map(|why| format!("{place} cannot be opened: {why}"))
    }
}

fn other_transport(place: &str, asked: &Asked) -> String {
    let (spoken, other) = match asked.transport {
        Transport::Tcp => ("TCP", "udp"),
        Transport::Udp => ("UDP", "tcp"),
    };
    format!("{place} does not send its pictures over {spoken}: set `transport = \"{other}\"`")
}

/// The status of an RTSP server's answer, where that is the error.
fn status(error: &gst::message::Error) -> Option<(u32, String)> {
    let details = error.details()?;
    let code = details.get::<u32>("rtsp-status-code").ok()?;
    Some((code, details.get::<Option<String>>("rtsp-status-reason").ok().flatten().unwrap_or_default()))
}

/// Why a host cannot be reached, by trying once more; `None` where it can, or where that is not to be learnt in time.
fn why_unreached(host: &str, port: u16) -> Option<String> {
    let (sender, told) = mpsc::channel();
    let asked = host.to_owned();
    // Finding an address has no deadline of its own; whoever waits has one.
    let reach = move || drop(sender.send(reach(&asked, port)));
    std::thread::Builder::new().name("reach".to_owned()).spawn(reach).ok()?;
    told.recv_timeout(REACH).ok().flatten()
}

fn reach(host: &str, port: u16) -> Option<String> {
    let Ok(mut addresses) = (host, port).to_socket_addrs() else { return Some(format!("no host is known as {host}")) };
    let address = addresses.next()?;
    TcpStream::connect_timeout(&address, REACH).err().and_then(|error| unreached_in_words(&error, host, port))
}

/// Why a connection failed, in words.
pub(super) fn unreached_in_words(error: &std::io::Error, host: &str, port: u16) -> Option<String> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(format!("nothing listens on port {port} of {host}")),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(format!("there is no way to {host}")),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(format!("{host} does not answer")),
        _ => None,
    }
}

/// What a missing-plugin message says is missing, "ASF demuxer" for example.
pub(super) fn missing_plugin(message: &gst::message::Element) -> Option<String> {
    let structure = message.structure().filter(|structure| structure.name() == "missing-plugin")?;
    structure.get::<String>("name").ok().map(|name| name.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_host_is_not_reached_is_told_apart() {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let refused = why_unreached("127.0.0.1", port).unwrap();
        assert!(refused.contains("nothing listens on port"), "{refused}");
        let nobody = reach("no-such-host.invalid", 554).unwrap();
        assert!(nobody.contains("no host is known as no-such-host.invalid"), "{nobody}");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(why_unreached("127.0.0.1", listener.local_addr().unwrap().port()), None);
    }
}
