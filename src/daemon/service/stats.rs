//! What the service tells of itself: to the service manager in a line, to everybody in `stats`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::match_rates::{MatchRates, Terms};
use super::{DaemonError, Service};
use crate::access::{Decider, SiteThreshold};
use crate::config::Config;
use crate::inference::{self, EngineReport, EngineState};
use crate::pipeline::Stage;
use crate::publish::{CameraStats, EngineStats, Latency, StateKey, Stats};
use crate::system::metrics::Summary;
use crate::system::{clock, process};
use crate::types::ModelId;

/// How often `stats` is published.
const STATS_EVERY: Duration = Duration::from_secs(60);
/// As often while an engine is being built: whoever waits for it sees that it goes on.
const BUILDING_EVERY: Duration = Duration::from_secs(5);

/// How often `stats` is published and the service manager told, by what is being built.
pub(super) fn every(engines: &[EngineReport]) -> Duration {
    let is_building = engines.iter().any(|engine| engine.state == EngineState::Building);
    if is_building { BUILDING_EVERY } else { STATS_EVERY }
}

impl Service {
    /// The doors' measure of themselves, as an earlier run left it.
    pub(super) fn open_rates(
        &self,
        config: &Config,
        decider: &mut Decider,
        (model, site): (&ModelId, &SiteThreshold),
    ) -> Result<MatchRates, DaemonError> {
        // What an earlier run raised is held against what is in force with everybody enrolled who is.
        decider.set_matching(site.at(self.gallery.snapshot().stats().people).0);

        let terms = Terms {
            target: config.access.false_grants_per_10000_strangers.per_10000(),
            tightens: config.access.tighten_on_match_rate,
        };
        let place = (config.state_dir.as_path(), StateKey::read(&config.secrets_dir)?);
        let told = (&self.counts.match_rates, clock::now());
        Ok(MatchRates::open(place, model.clone(), terms, (decider, &self.cameras), told))
    }

    /// How it fares, in a line.
    pub(super) fn status(&self) -> String {
        let mut status = format!(
            "cameras {}, people {}, frames {}, granted {}, refused {}",
            self.cameras.len(),
            self.gallery.snapshot().stats().people,
            self.counts.frames.get(),
            self.counts.granted.get(),
            self.counts.refused.get()
        );
        if let Some(rollback) = self.gallery.rollback() {
            status.push_str(&format!("; the gallery is not the newest, nothing is granted: {rollback}"));
        }
        if let Some(reason) = self.gallery.latched() {
            status.push_str(&format!("; the gallery takes no change since a write failed: {reason}"));
        }
        if let Some(why) = self.word.get().why_unheard() {
            status.push_str(&format!(
                "; the broker is no witness that this state is the newest, no grants beyond unheard-grants-s: {why}"
            ));
        }
        for engine in inference::engines().iter().filter(|engine| engine.state == EngineState::Building) {
            status.push_str(&format!(
                "; {}'s engine for {} in the making since {:.0} s",
                engine.model, engine.provider, engine.seconds
            ));
        }
        status
    }

    /// The figures since the last call.
    pub(super) fn stats(&self, interval: Duration) -> Stats {
        let stages = Stage::ALL.iter().filter_map(|stage| {
            let latency = latency(&self.timings.of(*stage).take())?;
            Some((stage.name().to_owned(), latency))
        });
        let looked = self.counts.looked.get();
        let fps = looked.saturating_sub(self.looked_before.swap(looked, Relaxed)) as f32 / interval.as_secs_f32().max(0.001);
        let share = self.cameras.len().max(1) as f32;
        let cameras = self.cameras.iter().zip(self.slots.writers()).map(|(camera, slot)| CameraStats {
            camera: camera.clone(),
            fps: fps / share,
            frames: slot.counts().put,
            frames_dropped: slot.counts().replaced,
        });
        let published = self.publisher.counts();
        Stats {
            at: clock::wall(),
            uptime_s: clock::monotonic().since(self.started).as_secs(),
            provider: self.provider(),
            engines: inference::engines().into_iter().map(engine_stats).collect(),
            cameras: cameras.collect(),
            stages: stages.collect(),
            decision: latency(&self.counts.grant_time.take()),
            decisions: self.counts.granted.get() + self.counts.refused.get(),
            events_dropped: published.events_dropped + published.decisions_lost + self.counts.reports_lost.get(),
            witness: self.word.get().as_str(),
            temperature_c: process::warmest_celsius(),
            match_rates: self.counts.match_rates.all(),
        }
    }
}

fn latency(summary: &Summary) -> Option<Latency> {
    let ms = |us: u64| us as f32 / 1e3;
    (summary.n > 0).then(|| Latency { p50_ms: ms(summary.p50_us), p99_ms: ms(summary.p99_us) })
}

/// Where the networks run; all the different answers when they do not run in one place.
pub(super) fn provider(networks: &[(ModelId, String)], engines: &[EngineReport]) -> String {
    let now = |(model, provider): &(ModelId, String)| {
        let ready = engines.iter().rfind(|engine| engine.model == model.as_str() && engine.state == EngineState::Ready);
        ready.map_or_else(|| provider.clone(), |engine| engine.provider.clone())
    };
    let mut all: Vec<String> = networks.iter().map(now).collect();
    all.sort_unstable();
    all.dedup();
    all.join("+")
}

fn engine_stats(engine: EngineReport) -> EngineStats {
    EngineStats {
        model: engine.model,
        provider: engine.provider,
        state: engine.state.as_str(),
        seconds: engine.seconds as u64,
        reason: engine.reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_in_the_making_is_told_of_at_least_every_five_seconds() {
        let engine = |state| EngineReport {
            model: "m".into(),
            provider: "ort/tensorrt".into(),
            state,
            seconds: 1.0,
            largest_difference: None,
            reason: None,
        };
        let (ready, building) = (engine(EngineState::Ready), engine(EngineState::Building));
        assert!(every(&[ready.clone(), building]) <= Duration::from_secs(5));
        assert_eq!((every(&[]), every(&[ready])), (STATS_EVERY, STATS_EVERY));
    }
}
