//! Generated portraits with known attributes: a dataset without download or licence.
//!
//! Every image is a cartoon head and shoulders on a plain background, with large features and soft shading,
//! so that a small model learns the images within minutes. Each has [`ATTRIBUTES.len()`] independent yes/no
//! attributes and a dozen unlabelled continuous properties (position, size, tones, parting, …). Because the
//! drawing determines the attributes, they can also be read back from any image in the same style, such as a
//! sample of a model: see [`measure`].
//!
//! - `sitter.rs` draws the random properties of the sitter of image *i*.
//! - `paint.rs` renders a sitter at a given size.
//! - `measure.rs` recovers the attributes from pixels.
//!
//! [`ATTRIBUTES.len()`]: ATTRIBUTES

mod measure;
mod paint;
mod sitter;

use crate::{Dataset, Error, Eyes, ImageShape};
use sitter::Sitter;

pub use measure::measure;
pub use sitter::ATTRIBUTES;

/// Minimum side at which the features are distinguishable.
pub const MIN_SIZE: usize = 16;

/// Mean eye positions.
pub const EYES: Eyes = paint::EYES;

/// A [`Dataset`] of `count` generated portraits, square and RGB.
///
/// Image `i` depends only on the seed, `i` and the size; its sitter only on the seed and `i`. The same people
/// can thus be rendered at several sizes, and a longer set begins with the images of a shorter one. Images
/// are rendered on read; nothing is cached.
///
/// ```
/// use glowflow_data::{Dataset, portraits::Portraits};
///
/// let portraits = Portraits::new(100, 32, 7);
/// let mut pixels = vec![0; portraits.shape().len()];
/// portraits.read(3, &mut pixels)?;
/// for (name, present) in portraits.attributes(3) {
///     println!("{name}: {present}");
/// }
/// # Ok::<(), glowflow_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Portraits {
    count: usize,
    size: usize,
    seed: u64,
}

impl Portraits {
    /// `count` portraits of `size` × `size` pixels.
    ///
    /// # Panics
    ///
    /// If `size` is less than [`MIN_SIZE`].
    pub fn new(count: usize, size: usize, seed: u64) -> Self {
        assert!(size >= MIN_SIZE, "portraits are at least {MIN_SIZE} pixels wide");
        Portraits { count, size, seed }
    }

    /// The attributes of image `index`, in the order of [`ATTRIBUTES`].
    ///
    /// # Panics
    ///
    /// If `index` is not less than the number of images.
    pub fn attributes(&self, index: usize) -> [(&'static str, bool); ATTRIBUTES.len()] {
        let present = self.sitter(index).attributes();
        std::array::from_fn(|a| (ATTRIBUTES[a], present[a]))
    }

    fn sitter(&self, index: usize) -> Sitter {
        assert!(index < self.count, "no portrait {index} of {}", self.count);
        Sitter::new(self.seed, index as u64)
    }
}

impl Dataset for Portraits {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> ImageShape {
        ImageShape { height: self.size, width: self.size, channels: 3 }
    }

    fn name(&self, index: usize) -> String {
        format!("portrait {index}")
    }

    /// Empty: the attributes overlap, so they are not classes; see [`Portraits::attributes`].
    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }

    /// Renders image `index`; never fails.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        paint::portrait(&self.sitter(index), self.size, pixels);
        Ok(())
    }
}
