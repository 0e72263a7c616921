//! Annotated pictures: boxes, points and names drawn over a photo or a frame, for `recognize --annotate` and `demo --snapshot`.

use font8x8::{BASIC_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};

use crate::types::{BoundingBox, Landmarks, Picture};
use crate::vision::pixels;

/// Magnification of the 8×8 font.
const LETTER: u32 = 2;

/// Green for granted, red for denied, yellow for not yet decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Green,
    Red,
    #[cfg(feature = "demo-broker")]
    Yellow,
}

impl Ink {
    fn rgb(self) -> Rgb<u8> {
        match self {
            Ink::Green => Rgb([40, 200, 80]),
            Ink::Red => Rgb([230, 50, 50]),
            #[cfg(feature = "demo-broker")]
            Ink::Yellow => Rgb([240, 200, 40]),
        }
    }
}

/// A picture as RGB to draw on.
pub(super) fn canvas(picture: &Picture) -> RgbImage {
    RgbImage::from_raw(picture.width(), picture.height(), pixels::to_rgb(picture))
        .unwrap_or_else(|| RgbImage::new(picture.width(), picture.height()))
}

/// Draws one face: its box, its points, and `label` above it.
pub(super) fn face(image: &mut RgbImage, bounding_box: &BoundingBox, landmarks: &Landmarks, label: &str, ink: Ink) {
    let BoundingBox { x, y, width, height } = *bounding_box;
    let color = ink.rgb();
    for thickness in 0..3 {
        let inset = thickness as f32;
        let (left, top, right, bottom) = (x + inset, y + inset, x + width - inset, y + height - inset);
        line(image, (left, top), (right, top), color);
        line(image, (left, bottom), (right, bottom), color);
        line(image, (left, top), (left, bottom), color);
        line(image, (right, top), (right, bottom), color);
    }
    for point in landmarks.0 {
        fill(image, point.x - 1.0, point.y - 1.0, 3, 3, color);
    }
    let rows = 8 * LETTER + 4;
    let columns = label.chars().count() as u32 * 8 * LETTER + 4;
    let top = if y >= rows as f32 { y - rows as f32 } else { y };
    fill(image, x, top, columns, rows, Rgb([0, 0, 0]));
    text(image, x + 2.0, top + 2.0, label, color);
}

fn put(image: &mut RgbImage, x: f32, y: f32, color: Rgb<u8>) {
    if x >= 0.0 && y >= 0.0 && x < image.width() as f32 && y < image.height() as f32 {
        image.put_pixel(x as u32, y as u32, color);
    }
}

/// An upright or level line.
fn line(image: &mut RgbImage, from: (f32, f32), to: (f32, f32), color: Rgb<u8>) {
    let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).clamp(1.0, 20_000.0) as u32;
    for step in 0..=steps {
        let part = step as f32 / steps as f32;
        put(image, from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part, color);
    }
}

fn fill(image: &mut RgbImage, x: f32, y: f32, columns: u32, rows: u32, color: Rgb<u8>) {
    for row in 0..rows {
        for column in 0..columns {
            put(image, x + column as f32, y + row as f32, color);
        }
    }
}

fn text(image: &mut RgbImage, x: f32, y: f32, label: &str, color: Rgb<u8>) {
    for (index, letter) in label.chars().enumerate() {
        let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
        for (row, bits) in glyph.iter().enumerate() {
            for column in (0..8u32).filter(|column| bits >> column & 1 == 1) {
                let left = x + ((index as u32 * 8 + column) * LETTER) as f32;
                fill(image, left, y + (row as u32 * LETTER) as f32, LETTER, LETTER, color);
            }
        }
    }
}
