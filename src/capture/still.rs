//! Photos in: from a file or from bytes to a [`Picture`], with every limit checked before the pixels are decoded: how many they are, and
//! what decoding them takes, the decoder's own memory included. What is decoded becomes RGB where it lies.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::raster;
use crate::types::Picture;
use crate::types::frame::MAX_SIDE;

/// The largest photo that is read, in bytes.
pub const MAX_BYTES: u64 = 25 * 1024 * 1024;
/// The most pixels that are decoded: 8192 × 6144, what large telephones take.
pub const MAX_PIXELS: u64 = 8192 * 6144;
/// What decoding may take where one photo is decoded for one person, in bytes: the costliest format at [`MAX_PIXELS`].
const MAX_DECODE_BYTES: u64 = 20 * MAX_PIXELS;
/// What decoding may take however few pixels are allowed, in bytes.
const LEAST_DECODE_BYTES: u64 = 16 << 20;
/// What a decoder may hold of what stands beside the pixels, colour profiles for example, in bytes.
const MAX_ASIDE_BYTES: u64 = 8 << 20;

/// The most scans of a JPEG. Each may go over every pixel again, so that a small file could keep a decoder busy for minutes; encoders make
/// ten to fifteen.
const MAX_SCANS: usize = 32;

/// Why a photo was refused.
#[derive(Debug, Error)]
pub enum StillError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Not a plain file.
    #[error("is no plain file")]
    NoFile,
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Too many bytes.
    #[error("has more than {MAX_BYTES} bytes: make the photo smaller")]
    TooManyBytes,
    /// No or too many pixels.
    #[error("has {width}x{height} pixels: give 1 to {MAX_SIDE} a side and at most {max_pixels} in all")]
    Size {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The most in all.
        max_pixels: u64,
    },
    /// Decoding takes too much memory.
    #[error(
        "takes {needed_mb} MB to decode, at most {limit_mb} are given: make the photo smaller, or save it with 8 bits a channel, without transparency and not progressive"
    )]
    Memory {
        /// What it takes, in 10^6 bytes.
        needed_mb: u64,
        /// What there is.
        limit_mb: u64,
    },
    /// Not a picture, or of a kind that is not read.
    #[error("is {0}: give a JPEG, PNG, WebP or BMP")]
    UnknownFormat(&'static str),
    /// The file ends before the picture does.
    #[error("is cut off: the file ends before the picture does")]
    CutOff,
    /// The decoder refuses it.
    #[error("is a damaged or unusual {format}: {reason}")]
    Damaged {
        /// What it looks like.
        format: &'static str,
        /// The decoder's word.
        reason: String,
    },
}

/// Reads a photo from a file; see [`decode_picture`].
pub fn read_picture(path: &Path) -> Result<Picture, StillError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(StillError::NoFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(StillError::TooManyBytes);
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows meanwhile is refused too.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    decode_picture(&bytes)
}

/// Decodes a photo to RGB as it is meant to be seen: turned as EXIF says, 16 bits reduced to 8, transparency over black, CMYK
/// converted, of an animation the first picture. Colour profiles are ignored.
pub fn decode_picture(bytes: &[u8]) -> Result<Picture, StillError> {
    decode_bounded(bytes, MAX_PIXELS, MAX_DECODE_BYTES)
}

/// As [`decode_picture`], with at most `max_pixels` and within the memory that these take as RGB, 3 bytes each (16 MiB at least; the
/// photo's own bytes, twice, and what stands beside its pixels come on top): for photos that anybody sends.
pub fn decode_picture_within(bytes: &[u8], max_pixels: u64) -> Result<Picture, StillError> {
    let max_pixels = max_pixels.min(MAX_PIXELS);
    decode_bounded(bytes, max_pixels, (3 * max_pixels).max(LEAST_DECODE_BYTES))
}

fn decode_bounded(bytes: &[u8], max_pixels: u64, max_memory: u64) -> Result<Picture, StillError> {
    decode(bytes, max_pixels, max_memory, true)
}

/// `may_lack_end` is whether a JPEG without an end marker is looked at more closely.
fn decode(bytes: &[u8], max_pixels: u64, max_memory: u64, may_lack_end: bool) -> Result<Picture, StillError> {
    if bytes.is_empty() {
        return Err(StillError::Empty);
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(StillError::TooManyBytes);
    }
    let format = known_format(bytes)?;
    let name = name_of(format);
    let refuse = |error: ImageError| refusal(name, &error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ASIDE_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    let is_side = |side: u32| (1..=MAX_SIDE).contains(&side);
    if !is_side(width) || !is_side(height) || u64::from(width) * u64::from(height) > max_pixels {
        return Err(StillError::Size { width, height, max_pixels });
    }
    let jpeg = (format == ImageFormat::Jpeg).then(|| Jpeg::of(bytes));
    match jpeg {
        Some(Jpeg { scans, .. }) if scans > MAX_SCANS => {
            return Err(StillError::Damaged { format: name, reason: format!("it has {scans} scans, more than {MAX_SCANS}") });
        }
        // The decoder fills what is missing with grey.
        Some(jpeg) if !(jpeg.has_end || may_lack_end && jpeg.is_one_scan()) => return Err(StillError::CutOff),
        Some(jpeg) if !jpeg.has_end => {
            drop(decoder);
            return decode_without_end(bytes, max_pixels, max_memory);
        }
        _ => {}
    }
    let orientation = decoder.orientation().map_err(refuse)?;
    let pixels = u64::from(width) * u64::from(height);
    let color = decoder.color_type();
    let own = match format {
        ImageFormat::Jpeg => jpeg.map_or(0, |jpeg| jpeg.coefficients(width, height)),
        ImageFormat::WebP => webp_bytes_a_pixel(bytes) * pixels,
        _ => 0,
    };
    let needed = decoder.total_bytes().max(3 * pixels) + own;
    if needed > max_memory {
        let mb = |bytes: u64| bytes.div_ceil(1_000_000);
        return Err(StillError::Memory { needed_mb: mb(needed), limit_mb: max_memory / 1_000_000 });
    }
    let length = decoder.total_bytes() as usize;
    let mut raw = vec![0; length.max(3 * pixels as usize)];
    decoder.read_image(&mut raw[..length]).map_err(refuse)?;
    let rgb = to_rgb(raw, length, color).ok_or_else(|| StillError::Damaged { format: name, reason: format!("{color:?}") })?;
    let (width, height, rgb) = turned(rgb, width, height, orientation, max_memory);
    Picture::from_rgb(width, height, rgb).ok_or(StillError::Size { width, height, max_pixels })
}

/// Decodes a JPEG whose last bytes are missing, if these are but the end marker: then it does not matter what follows the last block. Two
/// different endings that give the same pixels say so; whatever is missing of the picture itself would be read from them. The first one's
/// zero bits are a code in any table (ITU-T T.81, annex C).
fn decode_without_end(bytes: &[u8], max_pixels: u64, max_memory: u64) -> Result<Picture, StillError> {
    let kept = bytes.strip_suffix(&[0xFF]).unwrap_or(bytes);
    let with_ending = |ending: u8| {
        let whole = [kept, &[ending; 64], &[0xFF, 0xD9]].concat();
        let picture = decode(&whole, max_pixels, max_memory, false).map_err(|_| StillError::CutOff)?;
        let digest = Sha256::digest(picture.plane(0).0);
        Ok::<_, StillError>((digest, picture))
    };
    // One picture at a time is held.
    let (first, _) = with_ending(0)?;
    let (second, picture) = with_ending(0x55)?;
    if first == second { Ok(picture) } else { Err(StillError::CutOff) }
}

/// What a WebP's decoder holds besides what it gives, a pixel, by the first chunk: the lossy planes; the lossless picture; and where the
/// header announces more (RFC 9649, section 2.7), either of them and what comes with transparency, and with an animation its canvas and
/// a picture of it.
fn webp_bytes_a_pixel(bytes: &[u8]) -> u64 {
    const ANIMATION: u8 = 0x02;
    const ALPHA: u8 = 0x10;
    match (bytes.get(12..16), bytes.get(20)) {
        (Some(b"VP8 "), _) => 2,
        (Some(b"VP8X"), Some(flags)) if flags & ANIMATION != 0 => 16,
        (Some(b"VP8X"), Some(flags)) if flags & ALPHA != 0 => 8,
        _ => 4,
    }
}

/// The first `length` bytes of `raw`, of whatever kind, as RGB in their place.
fn to_rgb(mut raw: Vec<u8>, length: usize, color: ColorType) -> Option<Vec<u8>> {
    match color {
        ColorType::L8 => raster::widen::<1>(&mut raw, length, |p| [p[0]; 3]),
        ColorType::L16 => raster::widen::<2>(&mut raw, length, |p| [narrowed(p); 3]),
        ColorType::La8 => raster::widen::<2>(&mut raw, length, |p| [over_black(p[0], p[1]); 3]),
        ColorType::La16 => raster::narrow::<4>(&mut raw, |p| [over_black(narrowed(p), narrowed(&p[2..])); 3]),
        ColorType::Rgb8 => {}
        ColorType::Rgba8 => raster::narrow::<4>(&mut raw, |p| [0, 1, 2].map(|channel| over_black(p[channel], p[3]))),
        ColorType::Rgb16 => raster::narrow::<6>(&mut raw, |p| [0, 2, 4].map(|channel| narrowed(&p[channel..]))),
        ColorType::Rgba16 => {
            raster::narrow::<8>(&mut raw, |p| [0, 2, 4].map(|channel| over_black(narrowed(&p[channel..]), narrowed(&p[6..]))));
        }
        _ => return None,
    }
    // What was only needed on the way goes back at once.
    raw.shrink_to_fit();
    Some(raw)
}

fn over_black(value: u8, alpha: u8) -> u8 {
    (u16::from(value) * u16::from(alpha) / 255) as u8
}

/// The nearest of 256 steps to a sample of two bytes in this machine's order.
fn narrowed(sample: &[u8]) -> u8 {
    ((u32::from(u16::from_ne_bytes([sample[0], sample[1]])) + 128) / 257) as u8
}

/// As it is meant to be seen. Upright again it needs a second picture beside the first, or more time where there is no room for that.
fn turned(mut rgb: Vec<u8>, width: u32, height: u32, orientation: Orientation, max_memory: u64) -> (u32, u32, Vec<u8>) {
    let (w, h) = (width as usize, height as usize);
    // A turn by a right angle is a reflection on the diagonal and one on an axis.
    let (is_transposed, columns, rows) = match orientation {
        Orientation::NoTransforms => (false, false, false),
        Orientation::Rotate90 => (true, true, false),
        Orientation::Rotate180 => (false, true, true),
        Orientation::Rotate270 => (true, false, true),
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate270FlipH => (true, true, true),
    };
    let (w, h) = if is_transposed {
        if 2 * rgb.len() as u64 <= max_memory {
            rgb = raster::transposed(&rgb, w);
        } else {
            raster::transpose_in_place(&mut rgb, w);
        }
        (h, w)
    } else {
        (w, h)
    };
    if columns {
        rgb.chunks_exact_mut(3 * w).for_each(raster::reverse);
    }
    if rows {
        raster::reverse_rows(&mut rgb, 3 * w);
    }
    (w as u32, h as u32, rgb)
}

/// A small picture as JPEG, from `3 * width * height` bytes of RGB; nothing when they are not as many.
pub fn encode_jpeg(width: u32, height: u32, rgb: &[u8]) -> Option<Vec<u8>> {
    if rgb.len() != 3 * width as usize * height as usize {
        return None;
    }
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85);
    encoder.encode(rgb, width, height, image::ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}

/// The format by its first bytes; the name of the file says nothing.
fn known_format(bytes: &[u8]) -> Result<ImageFormat, StillError> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => Ok(format),
        Ok(format) => Err(StillError::UnknownFormat(name_of(format))),
        Err(_) => Err(StillError::UnknownFormat(match bytes.get(4..12) {
            Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftyphevc") => {
                "HEIC, which is not read (an iPhone gives JPEG when sent by mail, or with Settings, Camera, Formats, Most Compatible; `heif-convert` makes one)"
            }
            Some([b'f', b't', b'y', b'p', ..]) => "a clip or a picture of a kind that is not read",
            _ if bytes.starts_with(b"\0\0\0\x0cjP  ") => "JPEG 2000, which is not read",
            _ if bytes.starts_with(b"%PDF") => "PDF, which is not read",
            _ if std::str::from_utf8(&bytes[..bytes.len().min(64)]).is_ok() => "text, not a picture",
            _ => "no picture that is known",
        })),
    }
}

fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF, which is not read",
        ImageFormat::Tiff => "TIFF, which is not read",
        ImageFormat::Avif => "AVIF, which is not read",
        _ => "a picture format that is not read",
    }
}

fn refusal(format: &'static str, error: &ImageError) -> StillError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => StillError::CutOff,
        error => StillError::Damaged { format, reason: error.to_string() },
    }
}

/// What a JPEG's segments say of the work that it is.
#[derive(Debug, Clone, Copy, Default)]
struct Jpeg {
    /// Whether an end marker follows the last scan.
    has_end: bool,
    scans: usize,
    is_progressive: bool,
    /// Of the frame, and of its first scan.
    components: usize,
    first_scan: usize,
    /// The largest sampling factors, and all blocks of a unit that is coded together.
    widest: u64,
    highest: u64,
    blocks: u64,
}

impl Jpeg {
    /// Segments are walked (ITU-T T.81, annex B), because EXIF holds a thumbnail with an
    /// end marker of its own.
    fn of(bytes: &[u8]) -> Self {
        let mut at = 2;
        let mut jpeg = Self::default();
        let mut in_scan = false;
        while let Some(&[first, marker]) = bytes.get(at..at + 2) {
            match (first, marker) {
                (0xFF, 0xD9) => return Self { has_end: true, ..jpeg },
                (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
                (0xFF, 0x00) | (0..=0xFE, _) if in_scan => at += 1,
                (0xFF, 0xFF) | (0..=0xFE, _) => at += 1,
                (0xFF, marker) => {
                    let &[high, low] = bytes.get(at + 2..at + 4).unwrap_or_default() else { return jpeg };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let segment = bytes.get(at + 4..at + 2 + length).unwrap_or_default();
                    in_scan = marker == 0xDA;
                    match marker {
                        0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => jpeg.frame(marker, segment),
                        0xDA => jpeg.scan(segment),
                        _ => {}
                    }
                    at += 2 + length;
                }
            }
        }
        jpeg
    }

    /// Whether a single scan has all of it, so that a picture that breaks off lacks rows.
    fn is_one_scan(self) -> bool {
        !self.is_progressive && self.scans == 1 && self.first_scan >= self.components
    }

    fn frame(&mut self, marker: u8, segment: &[u8]) {
        self.is_progressive |= !matches!(marker, 0xC0 | 0xC1);
        let factors = segment.get(6..).unwrap_or_default().chunks_exact(3).map(|component| component[1]);
        let (mut components, mut blocks) = (0, 0);
        for factor in factors {
            let (wide, high) = (u64::from(factor >> 4), u64::from(factor & 15));
            components += 1;
            blocks += wide * high;
            self.widest = self.widest.max(wide);
            self.highest = self.highest.max(high);
        }
        // Of several frames the costliest counts.
        self.components = self.components.max(components);
        self.blocks = self.blocks.max(blocks);
    }

    fn scan(&mut self, segment: &[u8]) {
        if self.scans == 0 {
            self.first_scan = usize::from(*segment.first().unwrap_or(&0));
        }
        self.scans += 1;
    }

    /// The bytes of the coefficients, two each, that are kept until the last scan has come; nothing when one scan has it all.
    fn coefficients(self, width: u32, height: u32) -> u64 {
        let is_whole = self.first_scan >= self.components;
        if !self.is_progressive && is_whole {
            return 0;
        }
        let units = |side: u32, factor: u64| u64::from(side).div_ceil(8 * factor.max(1));
        // The decoder counts units of one block where the first scan does not bring every component.
        let (wide, high) = if is_whole && self.components > 1 { (self.widest, self.highest) } else { (1, 1) };
        units(width, wide) * units(height, high) * self.blocks * 64 * 2
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use image::{DynamicImage, ExtendedColorType, ImageEncoder, Rgb, RgbImage};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn scans_of(bytes: &[u8]) -> Option<usize> {
        let jpeg = Jpeg::of(bytes);
        jpeg.has_end.then_some(jpeg.scans)
    }

    fn drawn(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, 40])).into()
    }

    /// A PNG's header with a size of one's choice and its right checksum.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut chunk = b"IHDR".to_vec();
        chunk.extend(width.to_be_bytes());
        chunk.extend(height.to_be_bytes());
        chunk.extend([8, 2, 0, 0, 0]);
        let mut crc = u32::MAX;
        for byte in &chunk {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\r".to_vec();
        png.extend(chunk);
        png.extend((!crc).to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
        png
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"hello, this is a text", "text"),
            (b"GIF89a\x01\0\x01\0\0\0\0", "GIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
            (b"%PDF-1.7\n", "PDF"),
            (b"\xff\xd8\xff\xe0", "JPEG"),
        ] {
            let error = decode_picture(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(matches!(read_picture(Path::new("/")), Err(StillError::NoFile)));
        assert!(matches!(read_picture(Path::new("/nowhere.jpg")), Err(StillError::Unreadable(_))));
    }

    #[test]
    fn sizes_of_nothing_and_of_too_much_are_refused_before_decoding() {
        assert!(matches!(decode_picture(&png_header(0, 0)), Err(StillError::Size { .. } | StillError::Damaged { .. })));
        assert!(matches!(decode_picture(&png_header(16_000, 16_000)), Err(StillError::Size { width: 16_000, height: 16_000, .. })));
        assert!(matches!(
            decode_picture_within(&png_header(1000, 1001), 1_000_000),
            Err(StillError::Size { max_pixels: 1_000_000, .. })
        ));
        assert!(matches!(decode_picture(&png_header(8192, 8192)), Err(StillError::Size { .. })));
        assert!(matches!(decode_picture(&vec![0; MAX_BYTES as usize + 1]), Err(StillError::TooManyBytes)));
    }

    #[test]
    fn what_decoding_takes_is_bounded_by_the_source_and_not_by_what_becomes_of_it() {
        // 3 bytes for each of 6 million pixels, 18 MB: 16 bits and transparency take 8.
        let limit = 6_000_000;
        let of = |side: u32, image: fn(u32, u32) -> DynamicImage| encoded(&image(side, side), ImageFormat::Png);
        type Kind = fn(u32, u32) -> DynamicImage;
        let kinds: [(Kind, u32); 4] = [
            (DynamicImage::new_rgba16, 1500),
            (DynamicImage::new_rgba8, 2121),
            (DynamicImage::new_rgb8, 2449),
            (DynamicImage::new_luma8, 2449),
        ];
        for (kind, most) in kinds {
            let picture = decode_picture_within(&of(most, kind), limit).unwrap();
            assert_eq!(picture.plane(0).0.len(), 3 * (most * most) as usize);
            let refused = decode_picture_within(&of(most + 1, kind), limit);
            assert!(matches!(refused, Err(StillError::Memory { .. } | StillError::Size { .. })), "{most}");
        }
        let told = decode_picture_within(&of(2000, kinds[0].0), limit).unwrap_err().to_string();
        assert!(told.contains("takes 32 MB to decode, at most 18"), "{told}");
        // One photo for one person is another matter.
        assert!(decode_picture(&of(2000, kinds[0].0)).is_ok());
        let webp = encoded(&drawn(1700, 1700), ImageFormat::WebP);
        assert!(matches!(decode_picture_within(&webp, 3_000_000), Err(StillError::Memory { .. })));
        assert!(decode_picture_within(&webp, limit * 2).is_ok());
    }

    #[test]
    fn the_coefficients_of_a_jpeg_in_several_scans_count() {
        let frame = |marker: u8, factors: &[u8]| {
            let mut bytes = vec![0xFF, 0xD8, 0xFF, marker, 0, 8 + 3 * factors.len() as u8, 8, 0, 16, 0, 16, factors.len() as u8];
            factors.iter().for_each(|factor| bytes.extend([1, *factor, 0]));
            bytes
        };
        let scan = |components: u8| {
            [&[0xFF, 0xDA, 0, 6 + 2 * components, components][..], &vec![0; 3 + 2 * usize::from(components)]].concat()
        };
        let of = |marker: u8, factors: &[u8], scans: &[u8]| {
            let scans: Vec<u8> = scans.iter().flat_map(|components| scan(*components)).collect();
            let bytes = [frame(marker, factors), scans, vec![0xFF, 0xD9]].concat();
            Jpeg::of(&bytes).coefficients(16, 16)
        };
        let halved = [0x22, 0x11, 0x11];
        assert_eq!(of(0xC0, &halved, &[3]), 0, "one scan needs none");
        // Six blocks of 64 coefficients of two bytes for a unit of 16 by 16.
        assert_eq!(of(0xC2, &halved, &[3, 1, 1, 1]), 6 * 128);
        assert_eq!(of(0xC2, &[0x11; 3], &[3]), 4 * 3 * 128);
        assert_eq!(of(0xC0, &halved, &[1, 1, 1]), 4 * 6 * 128, "as the decoder counts them");
        assert_eq!(of(0xC2, &[0x44; 4], &[1]), 4 * 64 * 128);
    }

    #[test]
    fn every_kind_of_sample_and_every_orientation_is_as_the_library_has_it() {
        use image::metadata::Orientation;
        let image = drawn(7, 5);
        let deep =
            |seed: u32| move |x: u32, y: u32, channel: u32| ((x * 7919 + y * 104_729 + channel * 31_337 + seed) % 65_536) as u16;
        let value = deep(1);
        let rgba16 = image::ImageBuffer::from_fn(7, 5, |x, y| image::Rgba([0, 1, 2, 3].map(|c| value(x, y, c))));
        let rgba16 = DynamicImage::ImageRgba16(rgba16);
        for image in [
            rgba16.clone(),
            rgba16.to_rgb16().into(),
            rgba16.to_rgba8().into(),
            rgba16.to_rgb8().into(),
            rgba16.to_luma8().into(),
            rgba16.to_luma16().into(),
            rgba16.to_luma_alpha8().into(),
            rgba16.to_luma_alpha16().into(),
        ] {
            let rgba = image.to_rgba8();
            let expected: Vec<u8> = rgba.pixels().flat_map(|p| [0, 1, 2].map(|c| over_black(p[c], p[3]))).collect();
            let (length, color) = (image.as_bytes().len(), image.color());
            let mut raw = image.as_bytes().to_vec();
            raw.resize(length.max(3 * 35), 0);
            assert_eq!(to_rgb(raw, length, color).unwrap(), expected, "{color:?}");
        }
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = image.clone();
            expected.apply_orientation(orientation);
            for max_memory in [0, u64::MAX] {
                let (width, height, rgb) = turned(image.to_rgb8().into_raw(), 7, 5, orientation, max_memory);
                assert_eq!((width, height), (expected.width(), expected.height()), "{orientation:?}");
                assert!(rgb == expected.as_bytes(), "{orientation:?}");
            }
        }
    }

    #[test]
    fn a_jpeg_that_would_be_decoded_over_and_over_is_refused() {
        let whole = encoded(&drawn(64, 48), ImageFormat::Jpeg);
        let start = whole.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
        let (head, scan) = whole[..whole.len() - 2].split_at(start);
        let of = |scans: usize| [head, &scan.repeat(scans), &[0xFF, 0xD9]].concat();
        assert_eq!((scans_of(&of(1)), scans_of(&of(MAX_SCANS))), (Some(1), Some(MAX_SCANS)));
        let error = decode_picture(&of(MAX_SCANS + 1)).unwrap_err().to_string();
        assert!(error.contains("33 scans"), "{error}");
    }

    #[test]
    fn a_jpeg_that_lacks_its_end_marker_alone_is_taken_and_one_that_lacks_a_block_is_not() {
        for (width, height) in [(64, 48), (61, 35)] {
            let whole = encoded(&drawn(width, height), ImageFormat::Jpeg);
            let expected = decode_picture(&whole).unwrap();
            for missing in [1, 2] {
                let picture = decode_picture(&whole[..whole.len() - missing]).unwrap();
                assert!(picture.plane(0).0 == expected.plane(0).0, "{missing}");
            }
            for missing in [4, 5, 8, 20, whole.len() / 10] {
                let refused = decode_picture(&whole[..whole.len() - missing]);
                assert!(matches!(refused, Err(StillError::CutOff)), "{missing}: {refused:?}");
            }
            // A segment that promises more than there is, behind the picture.
            let promising = [&whole[..whole.len() - 2], b"\xff\xfe\xff\xff"].concat();
            assert!(matches!(decode_picture(&promising), Err(StillError::CutOff)));
        }
    }

    #[test]
    fn a_picture_that_is_cut_off_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let whole = encoded(&drawn(64, 48), format);
            assert!(decode_picture(&whole).is_ok(), "{format:?}");
            assert!(decode_picture(&whole[..whole.len() * 2 / 3]).is_err(), "{format:?}");
        }
    }

    #[test]
    fn deep_transparent_and_grey_pictures_become_rgb() {
        let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(3, 2, Rgb([0xFFFF, 0x8080, 0])));
        let picture = decode_picture(&encoded(&deep, ImageFormat::Png)).unwrap();
        assert_eq!(picture.plane(0).0[..3], [255, 128, 0]);
        let clear = DynamicImage::ImageRgba8(image::ImageBuffer::from_pixel(3, 2, image::Rgba([200, 100, 50, 0])));
        assert_eq!(decode_picture(&encoded(&clear, ImageFormat::Png)).unwrap().plane(0).0, [0; 18]);
        let grey = DynamicImage::ImageLuma8(image::ImageBuffer::from_pixel(3, 2, image::Luma([90])));
        assert_eq!(decode_picture(&encoded(&grey, ImageFormat::Jpeg)).unwrap().plane(0).0.len(), 18);
    }

    #[test]
    fn a_photo_is_turned_as_exif_says() {
        // Big-endian TIFF with one entry: tag 0x0112 (orientation), SHORT, value 6 (turn clockwise).
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        let mut jpeg = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(drawn(16, 8).as_bytes(), 16, 8, ExtendedColorType::Rgb8).unwrap();
        let picture = decode_picture(&jpeg).unwrap();
        assert_eq!((picture.width(), picture.height()), (8, 16));
    }

    #[test]
    fn a_cmyk_jpeg_is_read_or_refused_in_words() {
        // One 8 x 8 block of four components whose coefficients are all zero.
        let mut jpeg = b"\xff\xd8\xff\xdb\0\x43\0".to_vec();
        jpeg.extend([1; 64]);
        jpeg.extend(b"\xff\xc0\0\x14\x08\0\x08\0\x08\x04\x01\x11\0\x02\x11\0\x03\x11\0\x04\x11\0");
        for class in [0u8, 0x10] {
            jpeg.extend([0xff, 0xc4, 0, 20, class, 1]);
            jpeg.extend([0; 15]);
            jpeg.push(0);
        }
        jpeg.extend(b"\xff\xda\0\x0e\x04\x01\0\x02\0\x03\0\x04\0\0\x3f\0\0\xff\xd9");
        match decode_picture(&jpeg) {
            Ok(picture) => assert_eq!((picture.width(), picture.height()), (8, 8)),
            Err(error) => assert!(error.to_string().contains("JPEG"), "{error}"),
        }
    }

    #[test]
    fn of_an_animation_the_first_picture_is_read() {
        // 4 x 4, red then blue, lossless.
        let still = encoded(&RgbImage::from_pixel(4, 4, Rgb([255, 0, 0])).into(), ImageFormat::WebP);
        let other = encoded(&RgbImage::from_pixel(4, 4, Rgb([0, 0, 255])).into(), ImageFormat::WebP);
        let mut body = b"WEBPVP8X\x0a\0\0\0\x02\0\0\0\x03\0\0\x03\0\0ANIM\x06\0\0\0\0\0\0\0\0\0".to_vec();
        for frame in [&still[12..], &other[12..]] {
            body.extend(b"ANMF");
            body.extend((16 + frame.len() as u32).to_le_bytes());
            body.extend([0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0, 0, 100, 0, 0, 0]);
            body.extend(frame);
        }
        let mut webp = b"RIFF".to_vec();
        webp.extend((body.len() as u32).to_le_bytes());
        webp.extend(body);
        let picture = decode_picture(&webp).unwrap();
        let (red, blue) = (picture.plane(0).0[0], picture.plane(0).0[2]);
        // Blending onto the animation's background may cost a step.
        assert!(red >= 253 && blue <= 2, "{red} {blue}");
    }

    #[test]
    fn a_marker_inside_exif_does_not_count_as_the_end() {
        let whole = encoded(&drawn(32, 32), ImageFormat::Jpeg);
        let mut with_thumbnail = whole[..2].to_vec();
        with_thumbnail.extend(b"\xff\xe1\0\x06\xff\xd8\xff\xd9");
        with_thumbnail.extend(&whole[2..]);
        assert_eq!(scans_of(&with_thumbnail), Some(1));
        assert_eq!(scans_of(&with_thumbnail[..with_thumbnail.len() - 2]), None);
        assert_eq!(scans_of(&base64::engine::general_purpose::STANDARD.decode("/9j/2Q==").unwrap()), Some(0));
    }
}
