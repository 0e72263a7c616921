//! A picture that plots are drawn on pixel by pixel, with letters of the 8×8 font: no font file and no text library.

use std::convert::Infallible;

use font8x8::{BASIC_FONTS, UnicodeFonts};
use plotters::prelude::DrawingBackend;
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingErrorKind,
    text_anchor::{HPos, VPos},
};

/// RGB pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Three bytes a pixel, row by row.
    pub rgb: Vec<u8>,
}

impl Raster {
    /// A white picture.
    pub(super) fn white(width: u32, height: u32) -> Self {
        Self { width, height, rgb: vec![255; width as usize * height as usize * 3] }
    }
}

/// What plotters draws on.
pub(super) struct Canvas<'a>(pub(super) &'a mut Raster);

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// How many pixels a dot of the font takes on each side, for a text height in pixels.
fn magnification(size: f64) -> i32 {
    ((size / 8.0 * 0.85).round() as i32).max(1)
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.0.width, self.0.height)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return Ok(()) };
        if x < self.0.width && y < self.0.height {
            let at = (y as usize * self.0.width as usize + x as usize) * 3;
            let (r, g, b) = color.rgb;
            for (old, new) in self.0.rgb[at..at + 3].iter_mut().zip([r, g, b]) {
                *old = (f64::from(*old) * (1.0 - color.alpha) + f64::from(new) * color.alpha).round() as u8;
            }
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, position: BackendCoord) -> Drawn {
        let dot = magnification(style.size());
        let (width, height) = (text.chars().count() as i32 * 8 * dot, 8 * dot);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let (turn, color) = (style.transform(), style.color());
        for (index, letter) in text.chars().enumerate() {
            let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..8i32).filter(|column| bits >> column & 1 == 1) {
                    let (x, y) = (left + (index as i32 * 8 + column) * dot, top + row as i32 * dot);
                    for (inner_x, inner_y) in (0..dot).flat_map(|inner_y| (0..dot).map(move |inner_x| (inner_x, inner_y))) {
                        let (x, y) = turn.transform(x + inner_x, y + inner_y);
                        self.draw_pixel((position.0 + x, position.1 + y), color)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let dot = magnification(style.size()) as u32;
        Ok((text.chars().count() as u32 * 8 * dot, 8 * dot))
    }
}
