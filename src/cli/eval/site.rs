//! `calibrate --from-site`: what each threshold costs at the doors, by their own measure, and who is often close to it.

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::{Failure, Places, Result, code, say, say_json};
use crate::daemon::match_rates::report::{self, CameraReport, Point, SiteReport};

pub(super) fn run(places: &Places, as_json: bool) -> Result {
    let context = Context::load(places)?;
    let config = &context.config;
    let site =
        report::read_site(&config.state_dir, &config.secrets_dir, config.access.false_grants_per_10000_strangers.per_10000());
    let site = site.map_err(|why| Failure::data(format!("what the doors measured cannot be read: {why}")))?;
    let site = site.ok_or_else(|| {
        let folder = config.state_dir.display();
        Failure::data(format!("{folder}: no daemon has written down what its doors measured yet; it does so every five minutes"))
    })?;
    if as_json {
        say_json(&as_value(&site));
    } else {
        table(&site).iter().for_each(say);
    }
    Ok(code::YES)
}

fn as_value(site: &SiteReport) -> Value {
    let ten_thousand = |rate: f64| (rate * 1e6).round() / 100.0;
    let point = |point: &Point| {
        json!({
            "threshold": (point.threshold.value() * 1e4).round() / 1e4,
            "false_grants_per_10000": point.strangers.map(|at| ten_thousand(at.rate)),
            "interval": point.strangers.map(|at| [ten_thousand(at.interval.low), ten_thousand(at.interval.high)]),
            "past_grants_below": point.grants_below.map(|share| (share * 1e6).round() / 1e6),
        })
    };
    let camera = |camera: &CameraReport| json!({ "rate": camera.line, "grants": camera.grants.round(), "curve": camera.curve.iter().map(point).collect::<Vec<_>>() });
    let close = site.close.iter().map(|close| {
        json!({ "person": close.person, "kind": close.kind.as_str(), "visits": close.visits, "advice": close.kind.advice() })
    });
    json!({ "cameras": site.cameras.iter().map(camera).collect::<Vec<_>>(), "close": close.collect::<Vec<_>>() })
}

/// For a person to read.
fn table(site: &SiteReport) -> Vec<String> {
    let mut lines = Vec::new();
    for camera in &site.cameras {
        lines.push(report::sentence(&camera.line));
        lines.push(format!("  threshold  false grants per 10,000 strangers  of {:.0} past grants below", camera.grants));
        for point in &camera.curve {
            let strangers = point.strangers.map_or_else(
                || "too few visits".to_owned(),
                |at| {
                    let figure = |rate: f64| report::figure((rate * 1e4) as f32);
                    format!("{} [{}, {}]", figure(at.rate), figure(at.interval.low), figure(at.interval.high))
                },
            );
            let below = point.grants_below.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
            let is_configured = (point.threshold.value() - camera.line.configured_threshold).abs() < 1e-6;
            let mark = if is_configured { "  configured" } else { "" };
            lines.push(format!("  {:.3}      {strangers:<34} {below}{mark}", point.threshold.value()));
        }
    }
    let close = |close: &report::Close| {
        format!("{} is a {} ({} visits of late): {}", close.person, close.kind.as_str(), close.visits, close.kind.advice())
    };
    lines.extend(site.close.iter().map(close));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::interval::Interval;
    use crate::evaluation::tail::Estimate;
    use crate::publish::MatchRate;
    use crate::types::{CameraId, PersonId, Score};

    #[test]
    fn the_table_says_what_each_threshold_costs_and_who_is_close() {
        let line = MatchRate::unknown(CameraId::new("porch").unwrap(), (41, 59), 10.0, 0.526);
        let estimate = Estimate { rate: 0.00123, interval: Interval { low: 0.0004, high: 0.0031 }, least: 0.0006 };
        let point =
            |threshold: f32, strangers, grants_below| Point { threshold: Score::new(threshold).unwrap(), strangers, grants_below };
        let curve = vec![point(0.526, Some(estimate), Some(0.021)), point(0.536, None, None)];
        let close = vec![report::Close { person: PersonId::new("p7").unwrap(), kind: report::Kind::Goat, visits: 4 }];
        let site = SiteReport { cameras: vec![CameraReport { line, curve, grants: 212.0 }], close };
        let lines = table(&site);
        assert_eq!(lines[1], "  threshold  false grants per 10,000 strangers  of 212 past grants below");
        assert_eq!(lines[2], "  0.526      12 [4.0, 31]                       2.1 %  configured");
        assert_eq!(lines[3], "  0.536      too few visits                     -");
        assert!(lines[4].starts_with("p7 is a goat (4 visits of late): "), "{lines:?}");
        let value = as_value(&site);
        assert_eq!(value["cameras"][0]["curve"][0]["interval"], json!([4.0, 31.0]));
        assert_eq!(value["close"][0]["kind"], "goat");
    }
}
