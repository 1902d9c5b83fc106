//! Endless batches of training images.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ahead::Ahead;
use crate::random::{Purpose, RngStream};
use crate::{Augment, Batch, Dataset, Error};

/// Options of [`TrainingBatches`].
#[derive(Clone, Copy, Debug)]
pub struct TrainingOptions {
    /// Images per batch.
    pub batch_size: usize,
    /// Seed of the image order and of the augmentation.
    pub seed: u64,
    /// Random changes to the images.
    pub augment: Augment,
    /// The first batch delivered: 0, or the number at which an earlier run stopped.
    pub start_at: u64,
    /// Number of read-ahead threads; 0 counts as 1. The batches do not depend on it.
    pub threads: usize,
}

/// An endless iterator over batches of training images, read and augmented ahead in background threads.
///
/// Batch k depends only on the dataset, the seed, the batch size, the augmentation and k: starting at k gives
/// the same batches as a run from 0. Every epoch of ⌊images / batch size⌋ batches visits the images in a new
/// random order; the remainder that does not fill a batch is left out of that epoch. A broken image is
/// replaced by the next readable one.
///
/// After an error every further item is an error.
pub struct TrainingBatches {
    batches: Ahead<Result<Batch, Error>>,
}

impl TrainingBatches {
    /// Validates the options and starts reading.
    ///
    /// Fails if the dataset has fewer images than one batch.
    pub fn new(dataset: Arc<dyn Dataset>, options: TrainingOptions) -> Result<Self, Error> {
        Self::of_rows(dataset, options, 0..options.batch_size)
    }

    /// Like [`new`](Self::new), but reads and delivers only these images of each batch, given by their
    /// positions in it. The range is clamped to the batch. Separately read slices of a batch contain the same
    /// bytes as the whole batch.
    pub fn of_rows(
        dataset: Arc<dyn Dataset>,
        options: TrainingOptions,
        rows: Range<usize>,
    ) -> Result<Self, Error> {
        options.augment.check()?;
        if options.batch_size == 0 {
            return Err(Error::EmptyBatch);
        }
        let per_epoch = (dataset.len() / options.batch_size) as u64;
        if per_epoch == 0 {
            return Err(Error::TooFewImages { images: dataset.len(), batch_size: options.batch_size });
        }
        let end = rows.end.min(options.batch_size);
        let rows = rows.start.min(end)..end;
        let plan = Plan { dataset, options, rows, per_epoch, order: Mutex::new(None) };
        let make = move |number| Some(plan.batch(number));
        Ok(Self { batches: Ahead::start(options.threads, options.start_at, make) })
    }
}

impl Iterator for TrainingBatches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next()
    }
}

/// State shared by the threads.
struct Plan {
    dataset: Arc<dyn Dataset>,
    options: TrainingOptions,
    /// Positions in a batch that are read.
    rows: Range<usize>,
    per_epoch: u64,
    /// The most recently used epoch and its order.
    order: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl Plan {
    fn batch(&self, number: u64) -> Result<Batch, Error> {
        let size = self.options.batch_size;
        let shape = self.dataset.shape();
        let order = self.order(number / self.per_epoch);
        let first = (number % self.per_epoch) as usize * size;
        let mut batch = Batch {
            number,
            pixels: Vec::with_capacity(self.rows.len() * shape.len()),
            labels: Vec::new(),
            indices: Vec::with_capacity(self.rows.len()),
        };
        let mut image = vec![0; shape.len()];
        for position in self.rows.clone() {
            let index = self.read_from(order[first + position], &mut image)?;
            let seed = self.options.seed;
            let mut stream = RngStream::new(seed, Purpose::Augment, number, position as u64);
            self.options.augment.apply(&mut image, shape, &mut stream);
            batch.push(&*self.dataset, index, &image);
        }
        Ok(batch)
    }

    fn order(&self, epoch: u64) -> Arc<[usize]> {
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let stream = RngStream::new(self.options.seed, Purpose::Order, epoch, 0);
                let order: Arc<[usize]> = stream.permutation(self.dataset.len()).into();
                *kept = Some((epoch, order.clone()));
                order
            }
        }
    }

    /// Reads the first readable image at or after `index` and returns its index.
    fn read_from(&self, index: usize, image: &mut [u8]) -> Result<usize, Error> {
        let mut first_error = None;
        for candidate in (index..self.dataset.len()).chain(0..index) {
            match self.dataset.read(candidate, image) {
                Ok(()) => return Ok(candidate),
                Err(error @ Error::BrokenImage { .. }) => _ = first_error.get_or_insert(error),
                // The image itself may be intact: skipping it would change the run.
                Err(error) => return Err(error),
            }
        }
        // There is at least one image, `index`.
        Err(first_error.map_or(Error::EmptyBatch, |error| error.of_all(self.dataset.len())))
    }
}
