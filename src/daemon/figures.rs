//! The daemon's figures in Prometheus' text form, for `GET /metrics`.

use std::fmt::Write;

use super::api::Api;
use crate::access::Basis;
use crate::access::policy::DoorMode;
use crate::pipeline::Stage;
use crate::publish::{MatchRate, MatchRateState, State};
use crate::system::metrics::Lifetime;
use crate::system::process;
use crate::types::Outcome;

/// Everything, as of now.
pub(super) fn text(api: &Api) -> String {
    let mut text = Exposition::default();
    text.family("faceid_build_info", "gauge", "This program");
    text.sample("faceid_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("faceid_provider_info", "gauge", "Where the networks run");
    text.sample("faceid_provider_info", &[("provider", &api.provider)], 1);
    cameras(&mut text, api);
    decisions(&mut text, api);
    blocks(&mut text, api);
    match_rates(&mut text, &api.counts.match_rates.all());
    times(&mut text, api);
    plain(&mut text, api);
    matching(&mut text, api);
    text.family("faceid_messages_dropped_total", "counter", "Messages from the broker that were dropped because too many came");
    for (kind, count) in api.publisher.dropped() {
        text.sample("faceid_messages_dropped_total", &[("kind", kind)], count);
    }
    text.family("process_cpu_seconds_total", "counter", "CPU time of the process");
    text.sample("process_cpu_seconds_total", &[], process::cpu_time().as_secs_f64());
    let sensors = process::temperatures();
    if !sensors.is_empty() {
        text.family("faceid_temperature_celsius", "gauge", "The machine's thermal zones");
        for (number, (kind, celsius)) in sensors.iter().enumerate() {
            text.sample("faceid_temperature_celsius", &[("zone", &number.to_string()), ("kind", kind)], celsius);
        }
    }
    text.0
}

fn cameras(text: &mut Exposition, api: &Api) {
    let all = || api.cameras.iter().zip(api.slots.writers());
    text.family("faceid_frames_total", "counter", "Frames that a camera delivered");
    all().for_each(|(id, slot)| text.sample("faceid_frames_total", &[("camera", id.as_str())], slot.counts().put));
    text.family("faceid_frames_dropped_total", "counter", "Frames that a newer one replaced before anybody looked");
    all().for_each(|(id, slot)| text.sample("faceid_frames_dropped_total", &[("camera", id.as_str())], slot.counts().replaced));
    let lines = api.counts.cameras();
    text.family("faceid_camera_online", "gauge", "Whether a camera delivers usable frames");
    lines.iter().for_each(|(id, line)| text.sample("faceid_camera_online", &[("camera", id.as_str())], u8::from(line.is_online)));
    text.family(
        "faceid_camera_connects_total",
        "counter",
        "How often a camera came online: each after the first is a reconnection",
    );
    lines.iter().for_each(|(id, line)| text.sample("faceid_camera_connects_total", &[("camera", id.as_str())], line.connects));
}

fn decisions(text: &mut Exposition, api: &Api) {
    text.family("faceid_decisions_total", "counter", "Decisions by outcome and reason");
    for ((outcome, reason), count) in api.counts.decisions() {
        text.sample("faceid_decisions_total", &[("outcome", outcome), ("reason", reason)], count);
    }
    text.family("faceid_attempts_total", "counter", "Attempts that ended without a decision, by reason");
    for (reason, count) in api.counts.attempts() {
        text.sample("faceid_attempts_total", &[("reason", reason)], count);
    }
}

fn blocks(text: &mut Exposition, api: &Api) {
    let blocks = api.counts.blocked.lines();
    let blocked = || blocks.iter().flat_map(|(door, lines)| lines.iter().map(move |(reason, line)| (door, *reason, line)));
    text.family("faceid_door_blocked", "gauge", "1 while failed attempts let clear matches alone pass");
    for (door, reason, line) in blocked() {
        text.sample("faceid_door_blocked", &[("door", door.as_str()), ("reason", reason)], u8::from(line.until.is_some()));
    }
    let doors = api.counts.doors.all();
    text.family("faceid_door_locked_down", "gauge", "1 while a command or the policy locks a door down");
    for (door, line) in &doors {
        let is_locked_down = line.locked_down || line.mode == DoorMode::LockedDown;
        text.sample("faceid_door_locked_down", &[("door", door.as_str())], u8::from(is_locked_down));
    }
    text.family("faceid_door_held_open", "gauge", "1 while an operator holds a door open");
    for (door, line) in &doors {
        text.sample("faceid_door_held_open", &[("door", door.as_str())], u8::from(line.held_until.is_some()));
    }
    text.family("faceid_door_decisions_total", "counter", "Decisions at a door by outcome");
    for (door, line) in &doors {
        for outcome in [Outcome::Granted, Outcome::Denied, Outcome::Review].map(Outcome::as_str) {
            let count = line.decisions.get(outcome).copied().unwrap_or(0);
            text.sample("faceid_door_decisions_total", &[("door", door.as_str()), ("outcome", outcome)], count);
        }
    }
    text.family("faceid_door_blocks_total", "counter", "How often failed attempts blocked a door");
    for (door, reason, line) in blocked() {
        text.sample("faceid_door_blocks_total", &[("door", door.as_str()), ("reason", reason)], line.begun);
    }
}

fn match_rates(text: &mut Exposition, lines: &[MatchRate]) {
    /// What is read of a line; nothing where it is not known.
    type Figure = fn(&MatchRate) -> Option<f64>;
    let families: [(&str, &str, Figure); 7] = [
        (
            "faceid_match_rate_visits",
            "Strangers' visits that the expected false grants are taken from; old ones count less",
            |line| Some(line.visits.into()),
        ),
        ("faceid_match_rate_visits_missing", "Visits that are missing before anything can be said", |line| {
            Some(line.missing.unwrap_or(0).into())
        }),
        (
            "faceid_expected_false_grants_per_10000",
            "Expected false grants per 10,000 strangers at the threshold in force",
            |line| line.per_10000.map(f64::from),
        ),
        ("faceid_expected_false_grants_per_10000_low", "The lower end of its 95 % interval", |line| line.low.map(f64::from)),
        ("faceid_expected_false_grants_per_10000_high", "The upper end of its 95 % interval", |line| line.high.map(f64::from)),
        ("faceid_camera_match_threshold", "The least score of a match in force before a camera, raised or not", |line| {
            Some(line.threshold.into())
        }),
        ("faceid_match_rate_above_target", "1 while the rate is above the target, or was and the threshold is raised", |line| {
            let is_above = matches!(line.state, MatchRateState::AboveTarget | MatchRateState::Tightened);
            Some(u8::from(is_above).into())
        }),
    ];
    for (name, help, figure) in families {
        text.family(name, "gauge", help);
        for (line, value) in lines.iter().filter_map(|line| Some((line, figure(line)?))) {
            text.sample(name, &[("camera", line.camera.as_str())], (value * 1e4).round() / 1e4);
        }
    }
}

fn times(text: &mut Exposition, api: &Api) {
    text.family("faceid_stage_seconds", "histogram", "Time of one stage on one frame or face");
    for stage in Stage::ALL {
        text.histogram("faceid_stage_seconds", &[("stage", stage.name())], &api.timings.of(stage).lifetime());
    }
    for (name, help, histogram) in [
        ("faceid_frame_age_seconds", "From a frame's capture to the end of its stages", &api.counts.frame_age),
        ("faceid_grant_seconds", "From a track's first usable face to its grant", &api.counts.grant_time),
        ("faceid_refusal_seconds", "From a track's first usable face to a decision that opens nothing", &api.counts.refusal_time),
    ] {
        text.family(name, "histogram", help);
        text.histogram(name, &[], &histogram.lifetime());
    }
}

/// The threshold of a match with everybody enrolled who is, and whether the rate of false grants that was asked for is kept to.
fn matching(text: &mut Exposition, api: &Api) {
    let (score, basis) = api.site.at(api.gallery.snapshot().stats().people);
    text.family("faceid_match_threshold", "gauge", "The score from which on two faces are one person's");
    text.sample("faceid_match_threshold", &[], score.value());
    text.family(
        "faceid_match_target_kept",
        "gauge",
        "1 while the threshold keeps to access.false-grants-per-10000-strangers, as far as the pack's table was measured",
    );
    text.sample("faceid_match_target_kept", &[], u8::from(basis == Basis::Target));
}

fn plain(text: &mut Exposition, api: &Api) {
    let (counts, gallery, outbox) = (&api.counts, api.gallery.snapshot().stats(), api.publisher.counts());
    let is_connected = matches!(api.publisher.state(), State::Online { .. });
    for (name, kind, help, value) in [
        ("faceid_frames_judged_total", "counter", "Frames that the recogniser took", counts.frames.get()),
        ("faceid_frames_detected_total", "counter", "Frames that the detector looked at", counts.looked.get()),
        ("faceid_frames_failed_total", "counter", "Frames that a stage failed on", counts.failures.get()),
        ("faceid_reports_lost_total", "counter", "Reports that the decider had no room for", counts.reports_lost.get()),
        ("faceid_gallery_people", "gauge", "People enrolled", gallery.people as u64),
        ("faceid_gallery_templates", "gauge", "Templates enrolled", gallery.templates as u64),
        ("faceid_gallery_generation", "gauge", "Writes of the gallery so far", gallery.generation),
        (
            "faceid_gallery_rolled_back",
            "gauge",
            "1 while an older gallery keeps every door shut",
            api.gallery.rollback().is_some().into(),
        ),
        (
            "faceid_gallery_read_only",
            "gauge",
            "1 while a failed write keeps the gallery from being changed",
            api.gallery.latched().is_some().into(),
        ),
        (
            "faceid_broker_heard",
            "gauge",
            "Whether the broker has told since the start what it keeps of this device: before it nothing is granted",
            api.word.get().why_unheard().is_none().into(),
        ),
        ("faceid_broker_connected", "gauge", "Whether the broker is there", is_connected.into()),
        (
            "faceid_broker_connects_total",
            "counter",
            "Connections to the broker: each after the first is a reconnection",
            outbox.connections,
        ),
        ("faceid_outbox_waiting", "gauge", "Events that wait for the broker", outbox.waiting),
        ("faceid_outbox_decisions_waiting", "gauge", "Decisions among them", outbox.decisions_waiting),
        ("faceid_decisions_delivered_total", "counter", "Decisions that the broker confirmed", outbox.decisions_delivered),
        ("faceid_decisions_lost_total", "counter", "Decisions that the outbox had to give up", outbox.decisions_lost),
        (
            "faceid_decisions_not_durable_total",
            "counter",
            "Decisions published without being on disk",
            outbox.decisions_not_durable,
        ),
        ("faceid_events_dropped_total", "counter", "Other events that were given up", outbox.events_dropped),
        ("faceid_uptime_seconds", "gauge", "Since the process started", process::age().as_secs()),
        ("process_resident_memory_bytes", "gauge", "Memory in use", process::resident_bytes().unwrap_or(0)),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
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

    #[test]
    fn match_rates_are_told_of_each_camera_and_what_is_not_known_is_left_out() {
        let camera = |name: &str| crate::types::CameraId::new(name).unwrap();
        let few = MatchRate::unknown(camera("yard"), (41, 59), 10.0, 0.526);
        let (rate, low, high) = (Some(45.25), Some(18.0), Some(110.5));
        let state = MatchRateState::AboveTarget;
        let above =
            MatchRate { camera: camera("porch"), state, visits: 312, missing: None, per_10000: rate, low, high, ..few.clone() };
        let mut text = Exposition::default();
        match_rates(&mut text, &[few, above]);
        let samples: Vec<&str> = text.0.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "faceid_match_rate_visits{camera=\"yard\"} 41",
            "faceid_match_rate_visits{camera=\"porch\"} 312",
            "faceid_match_rate_visits_missing{camera=\"yard\"} 59",
            "faceid_match_rate_visits_missing{camera=\"porch\"} 0",
            "faceid_expected_false_grants_per_10000{camera=\"porch\"} 45.25",
            "faceid_expected_false_grants_per_10000_low{camera=\"porch\"} 18",
            "faceid_expected_false_grants_per_10000_high{camera=\"porch\"} 110.5",
            "faceid_camera_match_threshold{camera=\"yard\"} 0.526",
            "faceid_camera_match_threshold{camera=\"porch\"} 0.526",
            "faceid_match_rate_above_target{camera=\"yard\"} 0",
            "faceid_match_rate_above_target{camera=\"porch\"} 1",
        ];
        assert_eq!(samples, expected);
        assert_eq!(text.0.lines().filter(|line| line.starts_with("# TYPE")).count(), 7);
    }
}
