//! Eye positions in an image.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// Minimum horizontal distance between the eyes as a fraction of the width: aligning closer ones would
/// enlarge the image without bound.
const MIN_DISTANCE: f64 = 0.02;
/// Rounding error of the difference of two fractions.
const ROUNDING: f64 = 1e-9;

/// Centres of both eyes, each `[x, y]` as fractions of the image's width and height, from its top left
/// corner.
///
/// Left and right are those of the image, not of the person. Both positions are inside the image, the left
/// eye at least 0.02 of the width to the left of the right one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eyes {
    left: [f64; 2],
    right: [f64; 2],
}

/// Invalid eye positions.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("invalid eyes {0}: expected four numbers from 0 to 1 (left x, left y, right x, right y), with right x at least {MIN_DISTANCE} greater than left x, such as {example}", example = Eyes::CELEBA)]
pub struct InvalidEyes(String);

impl Eyes {
    /// Positions in CelebA's aligned photographs, cropped to their central square.
    pub const CELEBA: Self = Self { left: [0.39, 0.51], right: [0.61, 0.51] };

    /// # Errors
    /// [`InvalidEyes`] unless all coordinates are from 0 to 1 and the left eye is at least 0.02 to the left
    /// of the right one.
    pub fn new(left: [f64; 2], right: [f64; 2]) -> Result<Self, InvalidEyes> {
        let eyes = Self { left, right };
        let inside = [left, right].as_flattened().iter().all(|place| (0.0..=1.0).contains(place));
        let apart = right[0] - left[0] >= MIN_DISTANCE - ROUNDING;
        if inside && apart { Ok(eyes) } else { Err(InvalidEyes(eyes.to_string())) }
    }

    /// A horizontal pair, given the left eye of a face centred in the image.
    pub(crate) const fn mirrored(left: [f64; 2]) -> Self {
        assert!(0.0 <= left[0] && left[0] < 0.5 && 0.0 <= left[1] && left[1] <= 1.0);
        Self { left, right: [1.0 - left[0], left[1]] }
    }

    /// The eye on the left of the image.
    pub fn left(&self) -> [f64; 2] {
        self.left
    }

    /// The eye on the right of the image.
    pub fn right(&self) -> [f64; 2] {
        self.right
    }
}

impl Display for Eyes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ([a, b], [c, d]) = (self.left, self.right);
        write!(f, "{a},{b},{c},{d}")
    }
}

impl FromStr for Eyes {
    type Err = InvalidEyes;

    /// Reads `left x,left y,right x,right y`, separated by commas or blanks.
    fn from_str(text: &str) -> Result<Self, InvalidEyes> {
        let invalid = || InvalidEyes(format!("{text:?}"));
        let fields = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|field| !field.is_empty());
        let numbers: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
        match numbers[..] {
            [a, b, c, d] => Self::new([a, b], [c, d]),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["0.39,0.51,0.61,0.51", "0.39 0.51  0.61 0.51", " 0.39, 0.51, 0.61, 0.51"] {
            assert_eq!(text.parse(), Ok(Eyes::CELEBA), "{text}");
        }
        assert_eq!(Eyes::CELEBA.to_string().parse(), Ok(Eyes::CELEBA));
    }

    #[test]
    fn impossible_positions_are_refused() {
        for text in [
            "",
            "0.1,0.2",
            "0.1,0.2,0.3,0.4,0.5",
            "0.39,NaN,0.61,0.51",
            "0.39,0.51,1.61,0.51",
            "0.6,0.5,0.4,0.5",
            "0.5,0.5,0.515,0.5",
        ] {
            let message = text.parse::<Eyes>().unwrap_err().to_string();
            assert!(message.contains("0.39,0.51,0.61,0.51") && message.contains("0.02"), "{message}");
        }
        for text in ["0.4,0.5,0.42,0.5", "0.5,0.5,0.52,0.5"] {
            assert!(text.parse::<Eyes>().is_ok(), "{text}");
        }
    }
}
