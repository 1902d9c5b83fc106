//! Latents of images, and decoded pixels.

use ndarray::{Array4, Axis, Slice, Zip, concatenate};

use crate::Error;

/// Standardised latents of a batch of images: one array `[batch, h, w, c]` per level, with the image's
/// dimension in total. Exact decoding requires all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents<R = f32>(pub Vec<Array4<R>>);

impl<R: Clone> Latents<R> {
    /// Number of images.
    pub fn batch(&self) -> usize {
        self.0.first().map_or(0, |level| level.len_of(Axis(0)))
    }

    /// The images in `range`.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let slice = Slice::from(range.start as isize..range.end as isize);
        Self(self.0.iter().map(|level| level.slice_axis(Axis(0), slice).to_owned()).collect())
    }

    /// Concatenates the images of all parts.
    ///
    /// # Errors
    /// [`Error::Input`] if the parts belong to different models.
    pub fn concatenate(parts: &[Self]) -> Result<Self, Error> {
        let levels = parts.first().map_or(0, |part| part.0.len());
        let level = |level: usize| {
            let of_level: Option<Vec<_>> = parts.iter().map(|part| Some(part.0.get(level)?.view())).collect();
            concatenate(Axis(0), &of_level?).ok()
        };
        let whole: Option<Vec<_>> = (0..levels).map(level).collect();
        whole.map(Self).ok_or_else(|| {
            let shapes: Vec<Vec<_>> = parts
                .iter()
                .map(|part| part.0.iter().map(|level| level.shape().to_vec()).collect())
                .collect();
            Error::Input(format!("latents of different models cannot be joined: their shapes are {shapes:?}"))
        })
    }
}

impl<R: glowflow_kernels::Real> Latents<R> {
    /// `Σ self·other` over images, levels and elements; `other` must have the same shape.
    pub fn dot(&self, other: &Self) -> f64 {
        let pairs = self.0.iter().zip(&other.0).flat_map(|(a, b)| a.iter().zip(b));
        pairs.map(|(a, b)| a.wide() * b.wide()).sum()
    }

    /// `by·self + to·other`; `other` must have the same shape.
    pub fn combine(&self, by: R, other: &Self, to: R) -> Self {
        let combined =
            |(a, b): (&Array4<R>, &Array4<R>)| Zip::from(a).and(b).map_collect(|&a, &b| by * a + to * b);
        Self(self.0.iter().zip(&other.0).map(combined).collect())
    }
}

impl Latents {
    /// The images at `indices`.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self(self.0.iter().map(|level| level.select(Axis(0), indices)).collect())
    }

    /// Returns whether all latents of an image are finite.
    pub fn is_finite(&self, image: usize) -> bool {
        self.0.iter().all(|level| level.index_axis(Axis(0), image).iter().all(|x| x.is_finite()))
    }

    /// Sets all latents of an image to 0.
    pub(crate) fn clear(&mut self, image: usize) {
        self.0.iter_mut().for_each(|level| level.index_axis_mut(Axis(0), image).fill(0.0));
    }
}

/// Latents and densities of a batch of images.
#[derive(Clone, Debug)]
pub struct Encoded<R = f32> {
    /// The images' latents.
    pub latents: Latents<R>,
    /// `log p(v) − D·log bins` of each image, in nats: the density at the dequantised image, times the volume
    /// of a bin. With uniform noise its mean over draws is a lower bound on `log p(x)`. At bin centres it is
    /// the density at one point, not a likelihood of the image: for bits/dim, use
    /// [`Model::bits_per_dim`](crate::Model::bits_per_dim).
    pub log_density: Vec<f64>,
}

/// Images decoded to pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// `[batch, H, W, C]`.
    pub pixels: Array4<u8>,
    /// True if all values of each image were finite. Pixels of other values are black and meaningless. Such
    /// values occur far from the training data, and early in training, when couplings divide by values close
    /// to 0.
    pub finite: Vec<bool>,
}

impl Decoded {
    /// Returns whether the values of all images were finite.
    pub fn all_finite(&self) -> bool {
        self.finite.iter().all(|&finite| finite)
    }

    /// The pixels of all images in one array, in row-major order.
    pub fn into_bytes(self) -> Vec<u8> {
        self.pixels.into_raw_vec_and_offset().0
    }
}

/// A batch of images, encoded and decoded.
#[derive(Clone, Debug)]
pub struct RoundTrip<R = f32> {
    /// The images' latents, and their densities at these points: bin centres, or typical points of a
    /// dequantiser.
    pub encoded: Encoded<R>,
    /// `max |decode(encode(v)) − v|` of each image.
    pub errors: Vec<f64>,
    /// True if each image was reconstructed with the same pixels, at the model's bit depth.
    pub exact: Vec<bool>,
}
