//! What nobody asks the gallery for: purging people whose time has run out, writing it anew when that is due or when a write failed,
//! following one that this daemon may only read, and telling when something is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::events;
use super::purge::ExpiryClock;
use super::supervisor::{WorkerContext, WorkerError};
use crate::gallery::{Gallery, GalleryError, Settings};
use crate::publish::{Audit, Publisher};
use crate::system::{self, Backoff, clock, messages};
use crate::types::{Moment, Monotonic, PersonId};

/// Enrolments elsewhere are seen within this and a little.
const EVERY: Duration = Duration::from_millis(50);
/// How often people whose time has run out are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(20);
/// How soon after a failure it is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The worker that looks after the gallery.
pub(super) struct Care {
    gallery: Arc<Gallery>,
    publisher: Publisher,
    audit: Arc<Audit>,
    expiry: ExpiryClock,
    purged_at: Option<Monotonic>,
    resting_until: Option<Monotonic>,
    backoff: Backoff,
    has_told_rollback: bool,
    has_told_latch: bool,
}

impl Care {
    pub(super) fn new(gallery: Arc<Gallery>, publisher: Publisher, audit: Arc<Audit>, settings: &Settings) -> Self {
        let expiry = ExpiryClock::new(settings.purge_clock, Duration::from_secs(settings.purge_after_s));
        let (purged_at, resting_until, backoff) = (None, None, Backoff::new(RETRY.0, RETRY.1));
        Self {
            gallery,
            publisher,
            audit,
            expiry,
            purged_at,
            resting_until,
            backoff,
            has_told_rollback: false,
            has_told_latch: false,
        }
    }

    /// Looks after the gallery until told to stop.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        loop {
            context.beat();
            self.look_after(clock::now());
            if context.stop().sleep(EVERY) {
                return Ok(());
            }
        }
    }

    fn look_after(&mut self, now: Moment) {
        match self.gallery.refresh() {
            Ok(true) => {
                let stats = self.gallery.snapshot().stats();
                log::info!(people = stats.people, templates = stats.templates; "gallery read again");
            }
            Ok(false) => {}
            Err(error) => log::error!("the gallery on disk cannot be read, matching goes on with what was read before: {error}"),
        }
        self.tell_rollback();
        self.tell_latch(now);
        if self.resting_until.is_some_and(|until| now.monotonic < until) || self.gallery.rollback().is_some() {
            return;
        }
        let purged = if self.gallery.latched().is_some() { Ok(()) } else { self.purge(now) };
        match purged.and_then(|()| self.gallery.compact_if_due()) {
            Ok(false) | Err(GalleryError::OpenedReadOnly { .. }) => {}
            Ok(true) => self.backoff.reset(),
            Err(error) => {
                log::error!("the gallery could not be looked after, this is tried again: {error}");
                self.resting_until = Some(now.monotonic.plus(self.backoff.next_delay()));
            }
        }
        self.tell_latch(now);
    }

    fn purge(&mut self, now: Moment) -> Result<(), GalleryError> {
        if self.purged_at.is_some_and(|at| now.monotonic.since(at) < PURGE_EVERY) {
            return Ok(());
        }
        self.purged_at = Some(now.monotonic);
        let Some(expired_by) = self.expiry.look(now, system::clock_quality().is_synced) else { return Ok(()) };
        let purged = self.gallery.purge(expired_by)?;
        for person in &purged {
            log::warn!(MESSAGE_ID = messages::PURGED, person = person.as_str(); "the person's time had run out: removed with all templates");
        }
        for some in purged.chunks(events::IDS_AN_ENTRY) {
            let ids: Vec<&str> = some.iter().map(PersonId::as_str).collect();
            events::note(&self.audit, &self.publisher, "gallery", json!({"purged": ids}));
        }
        Ok(())
    }

    fn tell_rollback(&mut self) {
        match self.gallery.rollback() {
            Some(rollback) if !self.has_told_rollback => {
                log::error!(MESSAGE_ID = messages::ROLLBACK; "the gallery is not the newest, nothing is granted: {rollback}");
                self.publisher.publish(events::rollback(&rollback.to_string()));
                self.has_told_rollback = true;
            }
            Some(_) => {}
            None => self.has_told_rollback = false,
        }
    }

    /// That a write failed and nothing may be changed, and that it is over.
    fn tell_latch(&mut self, now: Moment) {
        let latched = self.gallery.latched();
        if latched.is_some() == self.has_told_latch {
            return;
        }
        self.has_told_latch = latched.is_some();
        events::note(&self.audit, &self.publisher, "gallery", json!({"read_only": latched.as_deref()}));
        match latched {
            Some(reason) => {
                log::error!(MESSAGE_ID = messages::GALLERY_READ_ONLY; "a write to the gallery failed, it takes no change and matching goes on: {reason}");
                self.publisher.publish(events::gallery_read_only(&reason));
                self.resting_until = Some(now.monotonic.plus(self.backoff.next_delay()));
            }
            None => log::warn!("the gallery was written anew and takes changes again"),
        }
    }
}
