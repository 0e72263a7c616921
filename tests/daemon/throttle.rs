//! The throttle on its default settings, before the project's own clip: A, a stranger, A on a phone, A on paper, then A and C together,
//! again and again. What the attacks bring upon the door keeps neither A nor C out, and whoever looks after the door is told.

use serde_json::Value;

use super::both_sides::{command, furnish};
use super::mosquitto::Mosquitto;
use super::show_it::{Ear, essence, start};

const THROTTLE: &str = "faceid/unit/door/front/throttle";

#[test]
fn the_bundled_clip_goes_round_on_default_settings_and_its_two_people_come_in_at_a_blocked_door_each_time() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "");
    let everything = Ear::on(broker.port, "faceid/unit/#");
    let (daemon, _notify) = start(&house, &config);
    let (mut is_blocked, mut alarms, mut told) = (None, 0, Vec::new());
    let (mut at_a_blocked_door, mut behind) = ((0, 0), 0);
    for round in 1..=3 {
        let mut came = (0, 0);
        everything.until("both people of a round", |topic, payload| {
            match topic.strip_prefix("faceid/unit/").unwrap() {
                "door/front/throttle" => {
                    let value: Value = serde_json::from_str(payload).unwrap();
                    is_blocked = value["blocked"].as_bool();
                    assert_eq!(value["until"].is_string(), is_blocked == Some(true), "{payload}");
                    told.push(payload.to_owned());
                }
                "alarm/throttled" => alarms += 1,
                "door/front/decision" => {
                    let (_, outcome, reason, person) = essence(payload);
                    let is_at_block = is_blocked == Some(true);
                    behind += u32::from(reason == "throttled");
                    match person.as_deref() {
                        Some("person-a") => {
                            (came.0, at_a_blocked_door.0) = (came.0 + 1, at_a_blocked_door.0 + u32::from(is_at_block))
                        }
                        Some("person-c") => {
                            (came.1, at_a_blocked_door.1) = (came.1 + 1, at_a_blocked_door.1 + u32::from(is_at_block))
                        }
                        _ => assert_ne!(outcome, "granted", "{payload}"),
                    }
                    assert!(person.is_none() || outcome == "granted", "round {round}: {payload}");
                }
                _ => {}
            }
            came == (2, 1)
        });
    }
    assert!(at_a_blocked_door.0 >= 2 && at_a_blocked_door.1 >= 2, "the door was hardly blocked: {at_a_blocked_door:?}, {told:#?}");
    assert!(alarms > 0 && behind > 0, "{alarms} alarms, {behind} refusals behind a block");

    // Whoever asks is told, and a signed release ends it at once.
    let chart = super::text(&house.run(&["--config", config.to_str().unwrap(), "doctor"]));
    assert!(chart.lines().any(|line| line.starts_with("weak") && line.contains("door front: blocked until")), "{chart}");
    assert_eq!(command(&house, &config, &["release"])["ok"], true);
    everything.until("the end of the block", |topic, payload| topic == THROTTLE && payload.contains("\"blocked\":false"));
    let chart = super::text(&house.run(&["--config", config.to_str().unwrap(), "doctor"]));
    assert!(!chart.contains("door front: blocked"), "{chart}");
    drop(daemon);
}
