//! Model settings that a file may not record.

use std::fmt;

use glowflow::PermutationType;

use crate::Error;

/// A setting of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Height and width of an image.
    Image,
    /// Bits of a pixel.
    Bits,
    /// Permutation of the channels, for models without 1×1 convolutions.
    Permutation,
}

impl Setting {
    /// Formats a list of settings in words.
    pub(crate) fn list(settings: &[Self]) -> String {
        settings.iter().map(Self::to_string).collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "the image size",
            Self::Bits => "the bits per channel",
            Self::Permutation => "the permutation of the channels (reverse)",
        })
    }
}

/// Values of settings that the file does not record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Height and width of an image.
    pub image: Option<[usize; 2]>,
    /// Bits of a pixel, 1 to 8.
    pub bits: Option<u32>,
    /// Permutation of the channels.
    pub permutation: Option<PermutationType>,
}

impl Settings {
    /// The image size and the bits, for a file that records neither.
    pub(crate) fn image_and_bits(&self) -> Result<([usize; 2], u32), Error> {
        match (self.image, self.bits) {
            (Some(image), Some(bits)) => Ok((image, bits)),
            (image, bits) => {
                let missing = [(Setting::Image, image.is_none()), (Setting::Bits, bits.is_none())];
                Err(Error::Missing(missing.into_iter().filter(|(_, is)| *is).map(|(it, _)| it).collect()))
            }
        }
    }

    /// Checks the image size against the one recorded in the file, `found`.
    pub(crate) fn check_image(&self, found: [usize; 2]) -> Result<[usize; 2], Error> {
        match self.image {
            Some(given) if given != found => Err(Error::model(format!(
                "images of {} × {} pixels were specified, but the model has images of {} × {}",
                given[0], given[1], found[0], found[1]
            ))),
            _ => Ok(found),
        }
    }
}
