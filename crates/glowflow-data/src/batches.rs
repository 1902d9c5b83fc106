//! One ordered pass over a dataset in batches.

use std::sync::Arc;

use crate::ahead::Ahead;
use crate::{Dataset, Error};

/// A batch of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Index of the batch, from 0.
    pub number: u64,
    /// Pixels of the images (NHWC).
    pub pixels: Vec<u8>,
    /// Labels of the images; empty if the dataset has none.
    pub labels: Vec<usize>,
    /// Indices of the images in the dataset.
    pub indices: Vec<usize>,
}

/// The iterator returned by [`batches_in_order`].
pub struct BatchesInOrder {
    batches: Ahead<Result<Batch, Error>>,
    images: usize,
    any: bool,
    first_error: Option<Error>,
}

/// Reads every image once, in order, in batches of `batch_size`; `threads` threads (0 counts as 1) read
/// ahead.
///
/// The last batch may be short. Broken images are skipped, and so are batches that would be empty;
/// [`Batch::indices`] lists the images present. If no image can be read, the only item is
/// [`Error::AllBroken`]. Any other error is returned immediately.
pub fn batches_in_order(
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    threads: usize,
) -> Result<BatchesInOrder, Error> {
    if batch_size == 0 {
        return Err(Error::EmptyBatch);
    }
    let images = dataset.len();
    let make = move |number: u64| {
        let first = usize::try_from(number).ok()?.checked_mul(batch_size)?;
        let end = first.saturating_add(batch_size).min(images);
        (first < images).then(|| read_batch(&*dataset, number, first..end))
    };
    Ok(BatchesInOrder { batches: Ahead::start(threads, 0, make), images, any: false, first_error: None })
}

/// Reads those of the images that are readable. Fails if there are none, or if an image that may be intact
/// could not be read.
fn read_batch(dataset: &dyn Dataset, number: u64, indices: std::ops::Range<usize>) -> Result<Batch, Error> {
    let mut batch = Batch {
        number,
        pixels: Vec::with_capacity(indices.len() * dataset.shape().len()),
        labels: Vec::new(),
        indices: Vec::new(),
    };
    let mut image = vec![0; dataset.shape().len()];
    let mut first_error = None;
    for index in indices {
        match dataset.read(index, &mut image) {
            Ok(()) => batch.push(dataset, index, &image),
            Err(error @ Error::BrokenImage { .. }) => _ = first_error.get_or_insert(error),
            Err(error) => return Err(error),
        }
    }
    match first_error {
        Some(error) if batch.indices.is_empty() => Err(error),
        _ => Ok(batch),
    }
}

impl Batch {
    pub(crate) fn push(&mut self, dataset: &dyn Dataset, index: usize, pixels: &[u8]) {
        self.pixels.extend_from_slice(pixels);
        self.labels.extend(dataset.label(index));
        self.indices.push(index);
    }
}

impl Iterator for BatchesInOrder {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        for batch in &mut self.batches {
            match batch {
                Ok(batch) => {
                    self.any = true;
                    return Some(Ok(batch));
                }
                Err(error @ Error::BrokenImage { .. }) => _ = self.first_error.get_or_insert(error),
                Err(error) => return Some(Err(error)),
            }
        }
        match self.first_error.take() {
            Some(error) if !self.any => Some(Err(error.of_all(self.images))),
            _ => None,
        }
    }
}
