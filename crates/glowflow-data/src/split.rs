//! Subsets of a dataset, such as held-out images.

use std::path::PathBuf;
use std::sync::Arc;

use crate::random::{Purpose, RngStream};
use crate::{Broken, Dataset, Error, ImageShape};

/// A [`Dataset`] restricted to a list of indices.
#[derive(Clone)]
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// Image `i` of the subset is image `indices[i]` of `dataset`.
    ///
    /// # Panics
    ///
    /// If an index is not less than `dataset.len()`.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        assert!(
            indices.iter().all(|&index| index < dataset.len()),
            "indices of a subset must be below {}",
            dataset.len()
        );
        Self { dataset, indices }
    }

    /// `count` random images of `dataset`, in their original order; all of them if there are no more.
    pub fn sample(dataset: Arc<dyn Dataset>, count: usize, seed: u64) -> Self {
        let mut indices = RngStream::new(seed, Purpose::Sample, 0, 0).permutation(dataset.len());
        indices.truncate(count);
        indices.sort_unstable();
        Self { dataset, indices }
    }

    /// The indices in the underlying dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> ImageShape {
        self.dataset.shape()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(self.indices[index])
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.dataset.label(self.indices[index])
    }

    fn content(&self, index: usize) -> u64 {
        self.dataset.content(self.indices[index])
    }

    fn stored_shape(&self, index: usize) -> Option<ImageShape> {
        self.dataset.stored_shape(self.indices[index])
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.dataset.path(self.indices[index])
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        self.dataset.read(self.indices[index], pixels)
    }

    fn broken(&self) -> Vec<Broken> {
        let mut all = self.dataset.broken();
        all.sort_by_key(|broken| broken.index);
        let within = |(index, inner): (usize, &usize)| {
            let found = all.binary_search_by_key(inner, |broken| broken.index).ok()?;
            Some(Broken { index, ..all[found].clone() })
        };
        self.indices.iter().enumerate().filter_map(within).collect()
    }
}

/// Splits a dataset at random into training images and test images, in this order.
///
/// The test set receives `test_fraction` of the images, rounded to a whole number and chosen by the seed.
/// Both parts keep the order of the images. Fails unless both parts have at least one image.
pub fn split(dataset: Arc<dyn Dataset>, test_fraction: f64, seed: u64) -> Result<(Subset, Subset), Error> {
    let images = dataset.len();
    // A negative or undefined fraction becomes 0 here.
    let count = (images as f64 * test_fraction).round() as usize;
    if count == 0 || count >= images {
        return Err(Error::Fraction { fraction: test_fraction, images });
    }
    let mut test = RngStream::new(seed, Purpose::Split, 0, 0).permutation(images);
    let mut train = test.split_off(count);
    train.sort_unstable();
    test.sort_unstable();
    Ok((Subset::new(dataset.clone(), train), Subset::new(dataset, test)))
}
