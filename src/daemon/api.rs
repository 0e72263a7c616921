//! What the local API gets of the daemon: the cameras' own recogniser, asked through a short queue, and the figures.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::supervisor::{Role, WorkerContext};
use super::workers::Counts;
use crate::access::Thresholds;
use crate::capture::{Slots, still};
use crate::gallery::{Gallery, Snapshot};
use crate::http::{Backend, Unavailable};
use crate::pipeline::{Pipeline, Stage, StillFace, Timings};
use crate::publish::Publisher;
use crate::system::metrics::Lifetime;
use crate::system::{clock, process};
use crate::types::{CameraId, Frame, Picture};
use crate::vision::stack::PackThresholds;

/// Pictures that wait for the recogniser. When full, the client is told to try again.
const ASKS: usize = 4;
/// The longest wait for an answer: a picture of many faces on a slow board.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// A frame older than this means that no camera delivers; a door without one decides nothing.
const STALE_FRAME: Duration = Duration::from_secs(10);
/// The API's first and longest wait between tries.
pub(super) const RETRY: Role = Role::Restartable { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30) };

/// A picture to be looked at between two frames.
pub(super) struct Ask {
    picture: Picture,
    /// Holds one answer and never blocks; nobody listens any more when it came too late.
    answer: SyncSender<Result<Vec<StillFace>, Unavailable>>,
}

/// The recogniser's end of the queue.
pub(super) struct Asks(Receiver<Ask>);

/// The API's end.
#[derive(Clone)]
pub(super) struct Recogniser {
    asks: SyncSender<Ask>,
    nudge: Slots<Frame>,
}

/// Both ends. `slots` are what the recogniser waits on: an ask wakes it.
pub(super) fn queue(slots: Slots<Frame>) -> (Recogniser, Asks) {
    let (asks, asked) = sync_channel(ASKS);
    (Recogniser { asks, nudge: slots }, Asks(asked))
}

impl Asks {
    /// Answers one ask, if there is any: between two frames one, so that a camera waits for one picture at most.
    pub(super) fn serve(&self, pipeline: &mut Pipeline) {
        if let Ok(Ask { picture, answer }) = self.0.try_recv() {
            let looked = pipeline.look_at_still(&picture).map_err(|error| {
                log::warn!("a picture of the API could not be judged: {error}");
                Unavailable::Failed
            });
            let _ = answer.try_send(looked);
        }
    }
}

impl Recogniser {
    fn look(&self, picture: Picture) -> Result<Vec<StillFace>, Unavailable> {
        let (answer, answered) = sync_channel(1);
        self.asks.try_send(Ask { picture, answer }).map_err(|error| match error {
            TrySendError::Full(_) => Unavailable::Busy,
            TrySendError::Disconnected(_) => Unavailable::Late,
        })?;
        self.nudge.nudge();
        answered.recv_timeout(ANSWER_DEADLINE).unwrap_or(Err(Unavailable::Late))
    }
}

/// What the API sees of the daemon.
pub(super) struct Api {
    pub(super) recogniser: Recogniser,
    pub(super) gallery: Arc<Gallery>,
    pub(super) thresholds: Thresholds,
    pub(super) has_liveness: bool,
    pub(super) counts: Arc<Counts>,
    pub(super) timings: Arc<Timings>,
    pub(super) slots: Slots<Frame>,
    pub(super) cameras: Vec<CameraId>,
    pub(super) publisher: Publisher,
    pub(super) provider: String,
}

impl Backend for Api {
    fn decode(&self, bytes: &[u8]) -> Result<Picture, String> {
        still::decode_picture(bytes).map_err(|error| error.to_string())
    }

    fn look(&self, picture: Picture) -> Result<Vec<StillFace>, Unavailable> {
        self.recogniser.look(picture)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.gallery.snapshot()
    }

    fn thresholds(&self) -> PackThresholds {
        let Thresholds { matching, margin, liveness } = self.thresholds;
        PackThresholds { matching, margin, liveness }
    }

    fn has_liveness(&self) -> bool {
        self.has_liveness
    }

    fn not_ready(&self) -> Option<String> {
        let last = self.counts.last_frame.last();
        match last.map(|at| clock::monotonic().since(at)) {
            None => Some("no frame has been judged yet".to_owned()),
            Some(age) if age > STALE_FRAME => Some(format!("no frame has been judged for {} s", age.as_secs())),
            Some(_) => None,
        }
    }

    fn metrics(&self) -> String {
        let mut text = Exposition::default();
        let cameras = || self.cameras.iter().zip(self.slots.writers());
        text.family("faceid_frames_total", "counter", "Frames that a camera delivered");
        cameras().for_each(|(id, slot)| text.sample("faceid_frames_total", &[("camera", id.as_str())], slot.counts().put));
        text.family("faceid_frames_dropped_total", "counter", "Frames that a newer one replaced before anybody looked");
        cameras()
            .for_each(|(id, slot)| text.sample("faceid_frames_dropped_total", &[("camera", id.as_str())], slot.counts().replaced));
        text.family("faceid_decisions_total", "counter", "Decisions by outcome and reason");
        for ((outcome, reason), count) in self.counts.decisions() {
            text.sample("faceid_decisions_total", &[("outcome", outcome), ("reason", reason)], count);
        }
        text.family("faceid_stage_seconds", "histogram", "Time of one stage on one frame or face");
        for stage in Stage::ALL {
            text.histogram("faceid_stage_seconds", &[("stage", stage.name())], &self.timings.of(stage).lifetime());
        }
        text.family("faceid_grant_seconds", "histogram", "From a track's first usable face to its grant");
        text.histogram("faceid_grant_seconds", &[], &self.counts.grant_time.lifetime());
        text.family("faceid_provider_info", "gauge", "Where the networks run");
        text.sample("faceid_provider_info", &[("provider", &self.provider)], 1);
        let (gallery, outbox) = (self.gallery.snapshot().stats(), self.publisher.counts());
        for (name, kind, help, value) in [
            ("faceid_frames_failed_total", "counter", "Frames that a stage failed on", self.counts.failures.get()),
            ("faceid_reports_lost_total", "counter", "Reports that the decider had no room for", self.counts.reports_lost.get()),
            ("faceid_gallery_people", "gauge", "People enrolled", gallery.people as u64),
            ("faceid_gallery_templates", "gauge", "Templates enrolled", gallery.templates as u64),
            ("faceid_outbox_waiting", "gauge", "Events that wait for the broker", outbox.waiting),
            ("faceid_decisions_lost_total", "counter", "Decisions that the outbox had to give up", outbox.decisions_lost),
            ("faceid_events_dropped_total", "counter", "Other events that were given up", outbox.events_dropped),
            ("process_resident_memory_bytes", "gauge", "Memory in use", process::resident_bytes().unwrap_or(0)),
        ] {
            text.family(name, kind, help);
            text.sample(name, &[], value);
        }
        text.family("process_cpu_seconds_total", "counter", "CPU time of the process");
        text.sample("process_cpu_seconds_total", &[], process::cpu_time().as_secs_f64());
        if let Some(celsius) = process::warmest_celsius() {
            text.family("faceid_temperature_celsius", "gauge", "The warmest sensor");
            text.sample("faceid_temperature_celsius", &[], celsius);
        }
        text.0
    }
}

/// Serves the API until told to stop.
pub(super) fn serve(
    context: &WorkerContext,
    settings: &crate::http::Settings,
    secrets: &std::path::Path,
    state: &std::path::Path,
    api: &Arc<Api>,
) -> Result<(), super::supervisor::WorkerError> {
    let tokens = crate::http::Tokens::read(secrets)?;
    crate::http::run(settings, tokens, api.clone(), state, context.stop(), &|| context.beat())?;
    Ok(())
}

/// Prometheus' text form, version 0.0.4. Label values are ids and words of closed lists; quotes and backslashes are escaped all the same.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], lifetime: &Lifetime) {
        let bucket = format!("{name}_bucket");
        for (upper_s, count) in &lifetime.buckets {
            let upper = upper_s.to_string();
            self.sample(&bucket, &[labels, &[("le", upper.as_str())]].concat(), count);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), lifetime.count);
        self.sample(&format!("{name}_sum"), labels, lifetime.sum_s);
        self.sample(&format!("{name}_count"), labels, lifetime.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        text.family("a_total", "counter", "Things");
        text.sample("a_total", &[("camera", "d\"oor\\"), ("b", "c")], 3);
        let lifetime = Lifetime { buckets: vec![(0.001, 1), (0.01, 4)], count: 5, sum_s: 0.25 };
        text.histogram("t_seconds", &[("stage", "detect")], &lifetime);
        let expected = "# HELP a_total Things\n# TYPE a_total counter\na_total{camera=\"d\\\"oor\\\\\",b=\"c\"} 3\n\
            t_seconds_bucket{stage=\"detect\",le=\"0.001\"} 1\nt_seconds_bucket{stage=\"detect\",le=\"0.01\"} 4\n\
            t_seconds_bucket{stage=\"detect\",le=\"+Inf\"} 5\nt_seconds_sum{stage=\"detect\"} 0.25\nt_seconds_count{stage=\"detect\"} 5\n";
        assert_eq!(text.0, expected);
    }
}
