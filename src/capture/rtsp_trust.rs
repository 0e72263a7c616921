//! Which authorities vouch for a camera's certificate.
//!
//! GLib asks the process's own authorities first, those of the system, and where one of them is content it asks nobody else: `rtspsrc`'s
//! `tls-database` and its signal `accept-certificate` are for certificates that have failed by then. So `ca-file` and `fingerprint` could
//! only add to whom this system believes, and any of its hundred authorities could vouch for a camera that is pinned. Therefore the
//! process's own authorities are none ([`those_of_the_system`] sees to it before the first connection), and each element is told whom it
//! may believe. MQTT does not go through GLib.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use gio::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::CaptureError;

/// GLib takes no empty list of authorities. This certificate is no authority's by its own word, ended in 1970, and its key was thrown away.
const NO_AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBTDCB8qADAgECAgEBMAoGCCqGSM49BAMCMBcxFTATBgNVBAMMDG5vIGF1dGhv
cml0eTAeFw03MDAxMDEwMDAwMDBaFw03MDAxMDIwMDAwMDBaMBcxFTATBgNVBAMM
DG5vIGF1dGhvcml0eTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDs9/9Durppr
e6bfpbJNvL7RvwdR0lolDAp8pGlISet3PWr8pOoWiD7v/GEkVAtH9oS4g4ayENY+
p1bdRHhOXTGjLzAtMAwGA1UdEwEB/wQCMAAwHQYDVR0OBBYEFC9GkhCaotXVKPQA
3RBzeVNCu5EJMAoGCCqGSM49BAMCA0kAMEYCIQD2cAHmbSwGPLxniRWEWVZIzJLH
L9kMNqBFrHQoo4eGdwIhAIoshdXQIjQOWQh9GGUw8DAb+CUYFGA8RJ7CYJrtLfDi
-----END CERTIFICATE-----
";
/// The property by which an element is told whom it may believe.
const PROPERTY: &str = "tls-database";

/// The process's authorities before and since. GLib's type may not be given to another thread, but an element may, and holds one: these
/// are never played.
struct Kept {
    system: gst::Element,
    nobody: gst::Element,
    /// What `nobody` is read from, by each connection anew.
    _list: File,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// The authorities that this system believes. From then on GLib believes none by itself.
pub(super) fn those_of_the_system() -> Result<gio::TlsDatabase, String> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let backend = gio::TlsBackend::default();
    let now = backend.default_database();
    if let Some(Kept { system, nobody, .. }) = &*kept
        && held_by(nobody).as_ref() == Some(&now)
        && let Some(system) = held_by(system)
    {
        return Ok(system);
    }
    let (nobody, list) = believing_nobody()?;
    let keep = |database: &gio::TlsDatabase| -> Result<gst::Element, CaptureError> {
        let element = super::pipelines::make("rtspsrc")?;
        element.set_property(PROPERTY, database);
        Ok(element)
    };
    let both = keep(&now).and_then(|system| Ok(Kept { system, nobody: keep(&nobody)?, _list: list }));
    *kept = Some(both.map_err(|error| error.to_string())?);
    backend.set_default_database(Some(&nobody));
    Ok(now)
}

fn believing_nobody() -> Result<(gio::TlsDatabase, File), String> {
    let told = |error: std::io::Error| format!("memory for no authority: {error}");
    // GLib reads a list by its name, now and for each connection; this one needs no place on a disk.
    let memory = rustix::fs::memfd_create("no-authority", rustix::fs::MemfdFlags::CLOEXEC);
    let mut memory = File::from(memory.map_err(|error| told(error.into()))?);
    memory.write_all(NO_AUTHORITY.as_bytes()).map_err(told)?;
    let database = gio::TlsFileDatabase::new(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let database = database.map_err(|error| format!("TLS takes no list without an authority: {}", error.message()))?;
    Ok((database.upcast(), memory))
}

fn held_by(element: &gst::Element) -> Option<gio::TlsDatabase> {
    element.property(PROPERTY)
}

/// Lets every element of a pipeline of the operator's own that speaks TLS, now or later, believe the system's authorities, where the
/// pipeline does not say whom: by itself GLib believes nobody once there is an `rtsps://` camera.
pub(super) fn give_those_of_the_system(pipeline: &gst::Pipeline) {
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        give(&element);
    }
    pipeline.connect_deep_element_added(|_, _, element| give(element));
}

fn give(element: &gst::Element) {
    let takes_one =
        element.find_property(PROPERTY).is_some_and(|property| property.value_type() == gio::TlsDatabase::static_type());
    if takes_one && held_by(element).is_none() {
        match those_of_the_system() {
            Ok(system) => element.set_property(PROPERTY, &system),
            Err(reason) => log::debug!("element {} is told no authorities: {reason}", element.name()),
        }
    }
}
