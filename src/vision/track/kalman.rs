//! Where a face will be: a Kalman filter of constant velocity for the middle and the size of its box, each axis for itself (the model of
//! SORT, Bewley et al., ICIP 2016, with the noise scaled by the face's size as in ByteTrack). Time is seconds and not frames, because
//! frames are skipped and cameras differ.

use crate::types::BoundingBox;

/// How far a detector's box wanders around the face, as a share of the face's size.
const JITTER: f32 = 0.05;
/// How much a face changes its speed within a second, in its own sizes a second: a walk that begins or ends.
const UNREST: f32 = 2.0;
/// The same for its size, which changes only by coming near.
const SIZE_UNREST: f32 = 0.5;
/// How fast a face may be when it is first seen, in its own sizes a second.
const FIRST_SPEED: f32 = 3.0;

/// One number that moves.
#[derive(Debug, Clone, Copy)]
struct Axis {
    value: f32,
    speed: f32,
    /// The covariance of value and speed.
    covariance: [[f32; 2]; 2],
}

/// A face's box that moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    x: Axis,
    y: Axis,
    width: Axis,
    height: Axis,
}

impl Axis {
    fn new(value: f32, size: f32) -> Self {
        let (jitter, speed) = (JITTER * size, FIRST_SPEED * size);
        Self { value, speed: 0.0, covariance: [[jitter * jitter, 0.0], [0.0, speed * speed]] }
    }

    fn predict(&mut self, seconds: f32, unrest: f32) {
        let [[a, b], [_, d]] = self.covariance;
        let q = unrest * unrest;
        self.value += self.speed * seconds;
        let cross = b + d * seconds + q * seconds * seconds / 2.0;
        self.covariance =
            [[a + 2.0 * b * seconds + d * seconds * seconds + q * seconds.powi(3) / 3.0, cross], [cross, d + q * seconds]];
    }

    fn correct(&mut self, measured: f32, jitter: f32) {
        let [[a, b], [_, d]] = self.covariance;
        let total = a + jitter * jitter;
        // A box without a size has no noise either, and two certainties cannot be weighed.
        if !(total.is_finite() && total > 0.0) {
            self.value = measured;
            return;
        }
        let (gain, speed_gain) = (a / total, b / total);
        let surprise = measured - self.value;
        self.value += gain * surprise;
        self.speed += speed_gain * surprise;
        self.covariance = [[(1.0 - gain) * a, (1.0 - gain) * b], [(1.0 - gain) * b, d - speed_gain * b]];
    }
}

impl Filter {
    pub(super) fn new(area: &BoundingBox) -> Self {
        let (middle, size) = (area.center(), size(area));
        Self {
            x: Axis::new(middle.x, size),
            y: Axis::new(middle.y, size),
            width: Axis::new(area.width, size),
            height: Axis::new(area.height, size),
        }
    }

    /// The box in `seconds` from its last sight; its size stays, because a size that goes on growing unseen is soon nonsense.
    pub(super) fn expected(&self, seconds: f32) -> BoundingBox {
        let (x, y) = (self.x.value + self.x.speed * seconds, self.y.value + self.y.speed * seconds);
        let (width, height) = (self.width.value.max(0.0), self.height.value.max(0.0));
        BoundingBox { x: x - width / 2.0, y: y - height / 2.0, width, height }
    }

    /// The box was seen, `seconds` after its last sight.
    pub(super) fn see(&mut self, seconds: f32, area: &BoundingBox) {
        let (middle, size) = (area.center(), size(area));
        if !(middle.x.is_finite() && middle.y.is_finite() && size.is_finite()) {
            return;
        }
        let axes = [
            (&mut self.x, middle.x, UNREST),
            (&mut self.y, middle.y, UNREST),
            (&mut self.width, area.width, SIZE_UNREST),
            (&mut self.height, area.height, SIZE_UNREST),
        ];
        for (axis, measured, unrest) in axes {
            axis.predict(seconds, unrest * size);
            axis.correct(measured, JITTER * size);
        }
    }
}

fn size(area: &BoundingBox) -> f32 {
    f32::midpoint(area.width.max(0.0), area.height.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, side: f32) -> BoundingBox {
        BoundingBox { x, y: 0.0, width: side, height: side }
    }

    #[test]
    fn a_steady_walk_is_foretold_within_the_jitter() {
        let mut filter = Filter::new(&square(0.0, 60.0));
        // 300 pixels a second, seen with an error of up to 2 pixels.
        for step in 1..=15u8 {
            let error = f32::from(step % 3) - 1.0;
            filter.see(1.0 / 30.0, &square(f32::from(step) * 10.0 + 2.0 * error, 60.0));
        }
        let expected = filter.expected(0.3);
        assert!((expected.x - 240.0).abs() < 12.0, "{expected:?}");
        assert!((expected.width - 60.0).abs() < 1.0);
    }

    #[test]
    fn nonsense_leaves_the_filter_as_it_was() {
        let mut filter = Filter::new(&square(0.0, 60.0));
        filter.see(0.03, &square(1.0, 60.0));
        let before = filter.expected(0.1);
        filter.see(0.03, &square(f32::NAN, 60.0));
        filter.see(0.03, &square(0.0, f32::INFINITY));
        assert_eq!(filter.expected(0.1), before);
        let mut empty = Filter::new(&square(0.0, 0.0));
        (0..5).for_each(|_| empty.see(0.0, &square(3.0, 0.0)));
        assert!(empty.expected(0.1).x.is_finite());
    }
}
