//! Photos in: from a file or from bytes to a [`Picture`], with every limit checked before the pixels are decoded.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use thiserror::Error;

use crate::types::Picture;
use crate::types::frame::MAX_SIDE;

/// The largest photo that is read, in bytes.
pub const MAX_BYTES: u64 = 25 * 1024 * 1024;
/// The most pixels that are decoded: 8192 × 6144, what large telephones take.
pub const MAX_PIXELS: u64 = 8192 * 6144;
/// The most memory that decoding may take, in bytes: 16-bit RGBA of [`MAX_PIXELS`] and a little.
const MAX_DECODE_BYTES: u64 = 8 * MAX_PIXELS + (16 << 20);

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
    decode_picture_within(bytes, MAX_PIXELS)
}

/// As [`decode_picture`], with at most `max_pixels`, where several may be decoded at once.
pub fn decode_picture_within(bytes: &[u8], max_pixels: u64) -> Result<Picture, StillError> {
    let max_pixels = max_pixels.min(MAX_PIXELS);
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
    limits.max_alloc = Some(MAX_DECODE_BYTES.min(8 * max_pixels + (16 << 20)));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    let is_side = |side: u32| (1..=MAX_SIDE).contains(&side);
    if !is_side(width) || !is_side(height) || u64::from(width) * u64::from(height) > max_pixels {
        return Err(StillError::Size { width, height, max_pixels });
    }
    if format == ImageFormat::Jpeg {
        match scans_of(bytes) {
            // The decoder fills what is missing with grey.
            None => return Err(StillError::CutOff),
            Some(scans) if scans > MAX_SCANS => {
                return Err(StillError::Damaged { format: name, reason: format!("it has {scans} scans, more than {MAX_SCANS}") });
            }
            Some(_) => {}
        }
    }
    let orientation = decoder.orientation().map_err(refuse)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    Picture::from_rgb(width, height, to_rgb(image)).ok_or(StillError::Size { width, height, max_pixels })
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

fn to_rgb(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    let over_black = |value: u8, alpha: u8| (u16::from(value) * u16::from(alpha) / 255) as u8;
    let rgba = image.into_rgba8().into_raw();
    rgba.chunks_exact(4).flat_map(|p| [over_black(p[0], p[3]), over_black(p[1], p[3]), over_black(p[2], p[3])]).collect()
}

/// The format by its first bytes; the name of the file says nothing.
fn known_format(bytes: &[u8]) -> Result<ImageFormat, StillError> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => Ok(format),
        Ok(format) => Err(StillError::UnknownFormat(name_of(format))),
        Err(_) => Err(StillError::UnknownFormat(match bytes.get(4..12) {
            Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftyphevc") => "HEIC, which is not read",
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

/// How many scans a JPEG has; nothing when no end marker follows the last one. Segments are walked (ITU-T T.81, annex B), because EXIF
/// holds a thumbnail with an end marker of its own.
fn scans_of(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    let mut scans = 0;
    let mut in_scan = false;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            (0xFF, 0xD9) => return Some(scans),
            (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0x00) | (0..=0xFE, _) if in_scan => at += 1,
            (0xFF, 0xFF) | (0..=0xFE, _) => at += 1,
            (0xFF, marker) => {
                let &[high, low] = bytes.get(at + 2..at + 4)? else { return None };
                in_scan = marker == 0xDA;
                scans += usize::from(in_scan);
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
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
