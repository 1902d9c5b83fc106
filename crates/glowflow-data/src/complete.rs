//! Whether an image file goes on to its end.
//!
//! Decoders fill what is missing or miss metadata behind the pixels, such as an orientation, and report
//! success.

use image::ImageFormat;

use crate::png_chunks::PngChunks;

/// Whether nothing is missing at the end of a file. Bytes behind the end do not matter.
///
/// Of a BMP the decoder itself notices what is missing.
pub(crate) fn is_complete(format: ImageFormat, file: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_is_complete(file),
        ImageFormat::Png => PngChunks::of(file).complete,
        ImageFormat::WebP => webp_is_complete(file),
        _ => true,
    }
}

/// Whether a JPEG goes on to its end-of-image marker.
///
/// Segments are stepped over, so that the end of an embedded thumbnail does not pass for the end of
/// the image.
fn jpeg_is_complete(file: &[u8]) -> bool {
    let mut at = 2; // behind the start-of-image marker
    while at + 1 < file.len() {
        if file[at] != 0xFF {
            at += 1; // entropy-coded data
            continue;
        }
        match file[at + 1] {
            0xD9 => return true,
            // A stuffed zero, a stand-alone marker, or a fill byte.
            0x00 | 0x01 | 0xD0..=0xD7 => at += 2,
            // Another image begins before the end of this one.
            0xD8 => return false,
            0xFF => at += 1,
            _ => match file.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// Whether a WebP has all the chunks of the size that it declares. Some writers omit the padding byte
/// at the end.
fn webp_is_complete(file: &[u8]) -> bool {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let Some(size) = word(4) else { return false };
    let mut at = 12; // behind the size and the word "WEBP"
    while at < size.saturating_add(8) {
        let Some(length) = word(at + 4) else { return false };
        let end = (at + 8).saturating_add(length);
        if end > file.len() {
            return false;
        }
        at = end + length % 2;
    }
    true
}
