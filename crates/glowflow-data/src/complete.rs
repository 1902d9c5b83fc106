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
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xFF => at += 1,
            _ => match file.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// Whether a WebP has the size that it declares. Writers omit the padding byte at the end.
fn webp_is_complete(file: &[u8]) -> bool {
    let declared = file.get(4..8).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    declared.is_some_and(|size| file.len() as u64 + u64::from(size % 2 == 0) >= u64::from(size) + 8)
}
