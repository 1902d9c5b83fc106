//! Drawn portraits with known attributes: a data set that needs no download and no licence.
//!
//! Every picture is a cartoon head and shoulders before a plain background, with large features and
//! soft shading, so that a small model learns them within minutes. Each has [`ATTRIBUTES.len()`]
//! yes/no attributes, drawn independently of one another, and a dozen continuous properties
//! (position, size, tones, parting, …) that nothing names. Because the attributes follow from the
//! drawing they can also be read back from any picture in the same style, such as one a model made:
//! see [`measure`].
//!
//! - `sitter.rs` draws the lots: who sits for picture *i*.
//! - `paint.rs` paints a sitter at some size.
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

/// The smallest side at which the features can still be told apart.
pub const MIN_SIZE: usize = 16;

/// Mean positions of the eyes.
pub const EYES: Eyes = paint::EYES;

/// A [`Dataset`] of `count` drawn portraits, square and RGB.
///
/// Picture `i` depends on nothing but the seed, `i` and the size, and its sitter on nothing but the
/// seed and `i`: the same people can be drawn small and large, and a longer set begins with the
/// pictures of a shorter one. Pictures are drawn when they are read; nothing is kept.
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

    /// The attributes of picture `index`, in the order of [`ATTRIBUTES`].
    ///
    /// # Panics
    ///
    /// If `index` is not less than the number of pictures.
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

    /// Empty: the attributes overlap, so they are no classes; see [`Portraits::attributes`].
    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }

    /// Draws picture `index`; never fails.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        paint::portrait(&self.sitter(index), self.size, pixels);
        Ok(())
    }
}
