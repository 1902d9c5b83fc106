//! An image: PNG, JPEG, WebP or BMP, at its own size and fitted to another.

#![no_main]

use glowflow_data::{ImageShape, image_of_bytes, picture_of_bytes};
use libfuzzer_sys::fuzz_target;

const MAX_PIXELS: u64 = 1 << 18;

fuzz_target!(init: glowflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    if let Ok((pixels, shape)) = picture_of_bytes(bytes, MAX_PIXELS) {
        assert_eq!(pixels.len(), shape.len());
        let square = ImageShape { height: 8, width: 8, channels: 3 };
        image_of_bytes(bytes, square, MAX_PIXELS).expect("a picture can be fitted");
    }
});
