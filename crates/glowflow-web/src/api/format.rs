//! Formats of answers with several images.

use axum::response::Response;
use glowflow::latent::Interpolation;
use glowflow_report::{animation, picture};
use serde::Deserialize;
use utoipa::ToSchema;

use super::images::{answer, png};
use crate::Problem;

/// Interpolation between two images.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Path)]
pub(crate) enum Course {
    /// Linear.
    #[default]
    Linear,
    /// Spherical: along the great circle.
    Spherical,
}

impl From<Course> for Interpolation {
    fn from(course: Course) -> Self {
        match course {
            Course::Linear => Self::Linear,
            Course::Spherical => Self::Spherical,
        }
    }
}

/// Images side by side as PNG, or in sequence as GIF (256 colours) or animated PNG (full colour).
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
    Gif,
    Apng,
}

impl Format {
    /// Returns several images. As PNG, they are enlarged and separated by gaps.
    pub(super) fn pictures(
        self,
        pixels: &[u8],
        shape: [usize; 3],
        finite: bool,
    ) -> Result<Response, Problem> {
        let (kind, animation) = match self {
            Self::Png => {
                let strip = picture::encode(&picture::rows(&[pixels], shape));
                return answer("image/png", strip, finite);
            }
            Self::Gif => ("image/gif", animation::Format::Gif),
            Self::Apng => ("image/apng", animation::Format::Apng),
        };
        answer(kind, animation::encode(animation, pixels, shape, animation::FRAME_MILLISECONDS), finite)
    }

    /// Returns several frames. As PNG, they are at their own size and without gaps, so that programs can crop
    /// them.
    pub(super) fn frames(self, pixels: &[u8], shape: [usize; 3], finite: bool) -> Result<Response, Problem> {
        if !matches!(self, Self::Png) {
            return self.pictures(pixels, shape, finite);
        }
        let [height, width, channels] = shape;
        let (row, image) = (width * channels, height * width * channels);
        let frames = pixels.len() / image;
        let strip: Vec<u8> = (0..height)
            .flat_map(|y| pixels.chunks(image).flat_map(move |frame| &frame[y * row..(y + 1) * row]))
            .copied()
            .collect();
        png(&strip, [height, frames * width, channels], finite)
    }
}
