//! What the first five minutes look like, with nothing but this project: the built-in pack, the bundled clip, the embedded broker.

use super::{House, text};

/// Every visit of the clip ends as the truth beside it says, and the verb says so by its exit code.
fn every_visit_is_right(backend: &str) {
    let house = House::new();
    let output = house.run(&["--backend", backend, "demo", "--snapshot", house.path("snapshots").to_str().unwrap()]);
    let said = text(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("6 of 6 visits"), "{said}");
    assert!(said.contains(&format!("networks: {backend}/cpu")), "{said}");
    let pictures = std::fs::read_dir(house.path("snapshots")).unwrap().count();
    assert_eq!(pictures, 6, "one picture a decision");
}

#[test]
fn the_demo_is_right_on_tract() {
    every_visit_is_right("tract");
}

#[test]
#[cfg(feature = "ort")]
fn the_demo_is_right_on_onnx_runtime() {
    if House::has_onnx_runtime() {
        every_visit_is_right("ort");
    } else {
        println!("SKIPPED: no ONNX Runtime library");
    }
}
