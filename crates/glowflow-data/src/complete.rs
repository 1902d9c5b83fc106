//! Detects truncated image files.
//!
//! Decoders fill in missing data, or miss metadata that follows the pixels, such as an orientation, and still
//! report success.

use image::ImageFormat;

use crate::png_chunks::PngChunks;

/// Returns whether a file is complete. Bytes after the end are ignored.
///
/// The BMP decoder detects truncation itself.
pub(crate) fn is_complete(format: ImageFormat, file: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_is_complete(file),
        ImageFormat::Png => PngChunks::of(file).complete,
        ImageFormat::WebP => webp_is_complete(file),
        _ => true,
    }
}

/// Returns whether a JPEG reaches its end-of-image marker.
///
/// Segments are skipped as a whole, so the end marker of an embedded thumbnail does not count as that of the
/// image.
fn jpeg_is_complete(file: &[u8]) -> bool {
    let mut at = 2; // after the start-of-image marker
    while at + 1 < file.len() {
        if file[at] != 0xFF {
            at += 1; // entropy-coded data
            continue;
        }
        match file[at + 1] {
            0xD9 => return true,
            // A stuffed zero, a stand-alone marker, or a fill byte.
            0x00 | 0x01 | 0xD0..=0xD7 => at += 2,
            // Another image begins before this one ends.
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

/// Returns whether a WebP has all the chunks of its declared size. Some writers omit the final padding byte.
fn webp_is_complete(file: &[u8]) -> bool {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let Some(size) = word(4) else { return false };
    let mut at = 12; // after the size and the word "WEBP"
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
