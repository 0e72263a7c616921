//! A picture within a margin of grey. Detectors were taught on faces with something around them and find none that fills its picture: the
//! same face with a margin is found.

use super::pixels::{Sampler, View, to_byte};
use crate::types::{Detection, Picture, Point};

/// The longest side of what is made, in pixels: a face that fills a larger picture is large enough in a smaller one.
const LONGEST: f32 = 1280.0;
/// The margin's shade.
const GREY: u8 = 128;

/// A picture in its margin, and where it lies there.
pub struct Framed {
    /// What is to be looked at.
    pub picture: Picture,
    left: f32,
    top: f32,
    /// Its pixels to one of the picture within.
    scale: f32,
}

impl Framed {
    /// `picture`, enlarged `scale` times (or less, where it would be longer than 1280 pixels), with a margin of this share of each side
    /// around it. `None` where nothing would be left of it.
    pub fn of(picture: &Picture, scale: f32, margin: f32) -> Option<Self> {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let scale = scale.min(LONGEST / (width.max(height) * (1.0 + 2.0 * margin)));
        let size = |side: f32| (side * scale).round() as usize;
        let (inner_width, inner_height) = (size(width), size(height));
        if inner_width == 0 || inner_height == 0 {
            return None;
        }
        let (left, top) = (size(width * margin), size(height * margin));
        let (outer_width, outer_height) = (inner_width + 2 * left, inner_height + 2 * top);
        let mut rgb = vec![GREY; 3 * outer_width * outer_height];
        Sampler::default().resize(picture, View::whole(picture), (inner_width, inner_height), |row, [red, green, blue]| {
            let at = 3 * ((top + row) * outer_width + left);
            for (pixel, ((red, green), blue)) in rgb[at..].chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
                pixel.copy_from_slice(&[*red, *green, *blue].map(to_byte));
            }
        });
        let picture = Picture::from_rgb(outer_width as u32, outer_height as u32, rgb)?;
        Some(Self { picture, left: left as f32, top: top as f32, scale })
    }

    /// A face of the framed picture, where it is in the picture within.
    pub fn within(&self, mut face: Detection) -> Detection {
        let at = |value: f32, start: f32| (value - start) / self.scale;
        face.bounding_box.x = at(face.bounding_box.x, self.left);
        face.bounding_box.y = at(face.bounding_box.y, self.top);
        face.bounding_box.width /= self.scale;
        face.bounding_box.height /= self.scale;
        face.landmarks.0 = face.landmarks.0.map(|point| Point { x: at(point.x, self.left), y: at(point.y, self.top) });
        face
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BoundingBox, Landmarks};

    #[test]
    fn the_picture_lies_within_its_margin_and_places_lead_back() {
        let rgb = (0..40 * 20).flat_map(|n| if n % 40 < 20 { [10u8; 3] } else { [200; 3] }).collect();
        let picture = Picture::from_rgb(40, 20, rgb).unwrap();
        for (scale, margin, size) in [(1.0, 0.0, (40, 20)), (2.0, 0.5, (160, 80)), (1000.0, 0.5, (1280, 640))] {
            let framed = Framed::of(&picture, scale, margin).unwrap();
            assert_eq!((framed.picture.width(), framed.picture.height()), size);
            let face = Detection {
                bounding_box: BoundingBox {
                    x: framed.left,
                    y: framed.top,
                    width: 10.0 * framed.scale,
                    height: 20.0 * framed.scale,
                },
                landmarks: Landmarks([Point { x: framed.left + 4.0 * framed.scale, y: framed.top }; 5]),
                confidence: 1.0,
            };
            let within = framed.within(face);
            assert_eq!(within.bounding_box, BoundingBox { x: 0.0, y: 0.0, width: 10.0, height: 20.0 });
            assert_eq!(within.landmarks.0[4], Point { x: 4.0, y: 0.0 });
            let (plane, stride) = framed.picture.plane(0);
            let shade = |x: f32, y: f32| {
                plane[stride * (framed.top + y * framed.scale) as usize + 3 * (framed.left + x * framed.scale) as usize]
            };
            assert_eq!((shade(2.0, 10.0), shade(38.0, 10.0)), (10, 200));
            assert!(margin == 0.0 || plane[0] == GREY && *plane.last().unwrap() == GREY);
        }
        // A side of which nothing would be left.
        let line = Picture::from_rgb(8192, 1, vec![0; 3 * 8192]).unwrap();
        assert!(Framed::of(&line, 1.0, 0.3).is_none());
    }
}
