//! What the doors measured of themselves: how many strangers they would let in, and who is often close to the threshold.

use super::super::context::Context;
use super::{Chart, State};
use crate::daemon::match_rates::report::{self, REMEDY, SiteReport};
use crate::publish::MatchRateState;

/// Says it of every camera that the daemon has written something of.
pub(super) fn examine(context: &Context, chart: &mut Chart) {
    let config = &context.config;
    match report::read_site(&config.state_dir, &config.secrets_dir, config.access.false_grants_per_10000_strangers.per_10000()) {
        Ok(None) => {}
        Ok(Some(site)) => tell(&site, chart),
        // A key that cannot be read is told of already.
        Err(_) if crate::system::secret::read(crate::publish::STATE_KEY, &config.secrets_dir).is_err() => {}
        Err(why) => chart.note("match rates", State::Weak, why, "nothing: the daemon begins them anew at its next start"),
    }
}

fn tell(site: &SiteReport, chart: &mut Chart) {
    for camera in &site.cameras {
        let (state, mend) = match camera.line.state {
            MatchRateState::TooFewVisits | MatchRateState::Fine => (State::Works, ""),
            MatchRateState::Tightened | MatchRateState::AboveTarget => (State::Weak, REMEDY),
        };
        chart.note(format!("match rate of {}", camera.line.camera), state, report::sentence(&camera.line), mend);
    }
    for close in &site.close {
        let says = format!("a {} ({} visits of late)", close.kind.as_str(), close.visits);
        chart.note(format!("person {}", close.person), State::Weak, says, close.kind.advice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::match_rates::report::{CameraReport, Close, Kind};
    use crate::publish::MatchRate;
    use crate::types::{CameraId, PersonId};

    #[test]
    fn doctor_says_what_is_known_what_is_missing_and_what_to_do() {
        let camera = |name: &str| CameraId::new(name).unwrap();
        let few = MatchRate::unknown(camera("yard"), (41, 59), 10.0, 0.526);
        let (rate, low, high) = (Some(45.2), Some(18.0), Some(110.4));
        let state = MatchRateState::AboveTarget;
        let above =
            MatchRate { camera: camera("porch"), state, visits: 312, missing: None, per_10000: rate, low, high, ..few.clone() };
        let report = |line| CameraReport { line, curve: Vec::new(), grants: 0.0 };
        let close = vec![Close { person: PersonId::new("p7").unwrap(), kind: Kind::Lamb, visits: 6 }];
        let mut chart = Chart::default();
        tell(&SiteReport { cameras: vec![report(few), report(above)], close }, &mut chart);
        let said: Vec<(&str, State, &str, &str)> =
            chart.0.iter().map(|f| (f.check.as_str(), f.state, f.says.as_str(), f.mend.as_str())).collect();
        let few = "camera `yard`: too few strangers' visits to say how many would be let in: 41, 59 more are needed";
        let above =
            "camera `porch`: of 10,000 strangers about 45 [18, 110] would be let in at 0.526, by 312 visits; the target is 10";
        assert_eq!(said[0], ("match rate of yard", State::Works, few, ""));
        assert_eq!(said[1], ("match rate of porch", State::Weak, above, REMEDY));
        assert_eq!(said[2], ("person p7", State::Weak, "a lamb (6 visits of late)", Kind::Lamb.advice()));
    }
}
