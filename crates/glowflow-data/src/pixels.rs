//! Converts numbers of any type to pixels, without guessing their scale.

use std::io::Read;

use crate::element_type::{ElementType, Kind};
use crate::elements;

/// The range of an array's values.
struct Range {
    least: f64,
    largest: f64,
    whole: bool,
    finite: bool,
}

impl Range {
    fn add(&mut self, value: f64) {
        self.least = self.least.min(value);
        self.largest = self.largest.max(value);
        self.whole &= value.fract() == 0.0;
        self.finite &= value.is_finite();
    }

    fn within(&self, least: f64, largest: f64) -> bool {
        self.least >= least && self.largest <= largest
    }
}

/// Reads an array as pixels. Numbers other than bytes are converted if all are integers from 0 to 255, and
/// not fractions of 1; other scales are refused with the appropriate conversion.
pub(crate) fn read(file: impl Read, dimensions: &[usize], element: ElementType) -> Result<Vec<u8>, String> {
    if element.is_byte() {
        return elements::read_bytes(file, dimensions);
    }
    if element.kind == Kind::Bool {
        return Err(
            "an array of bool is a mask and not pictures; save 255 * array.astype(\"uint8\") for black \
             and white pictures"
                .into(),
        );
    }
    let mut pixels = Vec::new();
    let mut range = Range { least: f64::INFINITY, largest: f64::NEG_INFINITY, whole: true, finite: true };
    let mut bytes = Vec::new();
    elements::read_each(file, dimensions, element.size, |piece| {
        bytes.clear();
        element.values(piece, |value| {
            range.add(value);
            // The cast saturates; the range shows whether values were lost.
            bytes.push(value as u8);
        });
        elements::extend(&mut pixels, bytes.iter().copied())
    })?;
    let fractions = element.kind == Kind::Float && range.within(0.0, 1.0);
    if range.finite && range.whole && range.within(0.0, 255.0) && !fractions {
        return Ok(pixels);
    }
    Err(refusal(&range, element))
}

fn refusal(range: &Range, element: ElementType) -> String {
    if !range.finite {
        return format!(
            "the {element} array holds NaN or infinite values; pixels are whole numbers 0 to 255"
        );
    }
    let Range { least, largest, .. } = range;
    let advice = if range.within(0.0, 1.0) {
        "save (255 * array).round().astype(\"uint8\")"
    } else if range.within(-1.0, 1.0) {
        "save (127.5 * (array + 1)).round().astype(\"uint8\")"
    } else if range.within(0.0, 255.0) {
        "save array.round().astype(\"uint8\")"
    } else if range.within(0.0, 65535.0) && range.whole {
        "save (array / 257).round().astype(\"uint8\") if they range up to 65535"
    } else {
        "scale them and save array.round().astype(\"uint8\")"
    };
    format!(
        "the {element} array holds values from {least} to {largest}, but pixels are whole numbers 0 to 255; {advice}"
    )
}
