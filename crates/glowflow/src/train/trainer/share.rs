//! The share of a batch computed by a rank: its gradient, and the values exchanged by all ranks.
//!
//! A batch has `train.accumulate` parts of equal size. Each rank has consecutive parts. Noise depends on the
//! step and on the image's position in the batch, so a part has the same gradient on any rank. A single rank
//! exchanges nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use glowflow_kernels::{Device, Operations};
use glowflow_ranks::{Ranks, RanksError, parts_of};

use super::buckets::Buckets;
use super::subtotals::Subtotals;
use super::{Trainer, from_device};
use crate::Error;
use crate::model::check_labels;
use crate::models::Architecture;
use crate::train::numbers::{from_bytes, to_bytes};
use crate::train::pass::Sums;

/// Images of a step on this rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Number of images on this rank.
    pub own: usize,
    /// Number of images in the batch.
    pub batch: usize,
    /// Number of images in a part; only the last part of a rank may have fewer.
    pub part: usize,
    /// Position of this rank's first image in the batch.
    pub first: usize,
}

/// Log-likelihoods and statistics of parts.
pub(super) struct Measured<D: Device> {
    /// Log-likelihoods in the order of the images, in one buffer or several.
    pub log_densities: Vec<D::Buffer>,
    /// Statistics of each part.
    pub statistics: Vec<D::Buffer>,
}

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Trains as one of several ranks, each of which receives its own images of every batch. All ranks must
    /// call [`initialize`](Self::initialize) and [`step`](Self::step) together. They then hold the same
    /// state, bit for bit that of a single rank.
    ///
    /// # Errors
    /// [`Error::Ranks`] if the parts of a batch, `train.accumulate`, cannot be distributed over the ranks.
    pub fn with_ranks(self, ranks: Arc<dyn Ranks>) -> Result<Self, Error> {
        parts_of(ranks.rank(), ranks.size(), self.config.train.accumulate)?;
        Ok(Self { ranks, ..self })
    }

    /// The ranks of the job.
    pub fn ranks(&self) -> &dyn Ranks {
        &*self.ranks
    }

    /// Checks this rank's images of a batch, and determines their position in it.
    pub(super) fn share(&self, pixels: &[u8], labels: &[usize]) -> Result<Share, Error> {
        let dimensions = self.config.model.dimensions();
        if pixels.is_empty() || !pixels.len().is_multiple_of(dimensions) {
            let len = pixels.len();
            return Err(Error::Input(format!(
                "{len} bytes are not a batch of images of {dimensions} bytes each"
            )));
        }
        let own = pixels.len() / dimensions;
        check_labels(&self.config.model, own, labels)?;
        let (size, parts) = (self.ranks.size(), self.config.train.accumulate);
        if size > 1 && !own.is_multiple_of(parts / size) {
            let parts = parts / size;
            return Err(Error::Input(format!(
                "{own} images of a rank cannot be divided into {parts} equal parts; give a multiple of {parts}"
            )));
        }
        let batch = own * size;
        Ok(Share { own, batch, part: batch.div_ceil(parts), first: own * self.ranks.rank() })
    }

    /// Computes the gradient of the batch, and returns the log-likelihoods and statistics of all its parts.
    pub(super) fn sum_gradients(
        &mut self,
        pixels: &[u8],
        labels: &[usize],
        share: Share,
    ) -> Result<Measured<D>, Error> {
        let Share { own, batch, part, .. } = share;
        let dimensions = self.config.model.dimensions();
        let mut measured = Measured { log_densities: vec![], statistics: vec![] };
        let mut subtotals = Subtotals::new();
        let last = (own - 1) / part * part;
        for start in (0..last).step_by(part) {
            let (pixels, labels) = images(pixels, labels, dimensions, start..start + part);
            let done = self.pass(pixels, labels, (part, batch), share.first + start, Sums::None)?;
            measured.push(done);
            subtotals.push(&self.device, &mut self.gradient);
        }
        let count = own - last;
        let (pixels, labels) = images(pixels, labels, dimensions, last..own);
        if self.ranks.size() == 1 {
            let done = self.pass(pixels, labels, (count, batch), share.first + last, Sums::None)?;
            measured.push(done);
            subtotals.add_to(&self.device, &mut self.gradient, 0..self.flow.layout.len());
            return Ok(measured);
        }
        if let Some(link) = self.link.clone() {
            // Captured graphs hold the addresses of the gradient, but not those of subtotals.
            let alone = last == 0;
            let sums = if alone { Sums::Devices(&link) } else { Sums::None };
            let done = self.pass(pixels, labels, (count, batch), share.first + last, sums)?;
            measured.push(done);
            if !alone {
                subtotals.add_to(&self.device, &mut self.gradient, 0..self.flow.layout.len());
                link.sum(&self.device, &mut self.gradient, &self.flow);
            }
            link.wait(&self.device)?;
            return self.gather(&measured, own);
        }
        let mut buckets = Buckets::new(Arc::clone(&self.ranks), &self.flow, subtotals);
        // A device with its own memory captures the pass, and nothing may wait for results in between.
        let overlap = self.device.peak_memory().is_none();
        let during = if overlap { Sums::Host(&mut buckets) } else { Sums::None };
        let done = self.pass(pixels, labels, (count, batch), share.first + last, during)?;
        measured.push(done);
        buckets.flush(&self.device, &mut self.gradient, &self.flow);
        let begin = Instant::now();
        let measured = self.gather(&measured, own)?;
        buckets.finish(&self.device, &mut self.gradient)?;
        self.waited += begin.elapsed();
        Ok(measured)
    }

    /// The log-likelihoods and statistics of all ranks, in their order.
    fn gather(&self, own: &Measured<D>, images: usize) -> Result<Measured<D>, Error> {
        let mut numbers = vec![];
        for buffer in own.log_densities.iter().chain(&own.statistics) {
            numbers.extend(from_device(&self.device, buffer)?);
        }
        let all = self.ranks.gather(&to_bytes(&numbers))?;
        let all: Vec<Vec<f32>> = all.iter().map(|bytes| from_bytes(bytes)).collect();
        if let Some(rank) = all.iter().position(|other| other.len() != all[0].len()) {
            return Err(RanksError::Unlike { what: "number of images", rank }.into());
        }
        let log_densities: Vec<f32> = all.iter().flat_map(|numbers| &numbers[..images]).copied().collect();
        let len = self.flow.layout.buffers_len();
        let parts = all.iter().flat_map(|numbers| numbers[images..].chunks_exact(len.max(1)));
        Ok(Measured {
            statistics: parts.map(|part| self.to_device(part.to_vec())).collect(),
            log_densities: vec![self.to_device(log_densities)],
        })
    }

    /// The images and labels of all ranks.
    pub(super) fn whole_batch(
        &self,
        pixels: &[u8],
        labels: &[usize],
    ) -> Result<(Vec<u8>, Vec<usize>), Error> {
        let pixels = self.ranks.gather(pixels)?;
        if let Some(rank) = pixels.iter().position(|other| other.len() != pixels[0].len()) {
            return Err(RanksError::Unlike { what: "number of images", rank }.into());
        }
        let labels: Vec<u8> = labels.iter().flat_map(|&label| (label as u64).to_le_bytes()).collect();
        let labels = self.ranks.gather(&labels)?.concat();
        let label = |bytes| u64::from_le_bytes(<[u8; 8]>::try_from(bytes).unwrap_or_default()) as usize;
        Ok((pixels.concat(), labels.chunks_exact(8).map(label).collect()))
    }

    fn to_device(&self, values: Vec<f32>) -> D::Buffer {
        super::to_device(&self.device, values)
    }

    /// Replaces the weights by those of rank 0, unless `done` is an error there. In that case all ranks
    /// return an error.
    pub(super) fn share_weights(&mut self, done: Result<(), Error>) -> Result<(), Error> {
        if self.ranks.size() == 1 {
            return done;
        }
        let mut bytes = match &done {
            Ok(()) if self.ranks.rank() == 0 => to_bytes(&from_device(&self.device, &self.weights)?),
            _ => vec![],
        };
        self.ranks.broadcast(&mut bytes)?;
        done?;
        let weights = from_bytes(&bytes);
        if weights.len() != self.flow.layout.len() {
            return Err(Error::Diverged(
                "rank 0 could not initialise the model from its first images".into(),
            ));
        }
        let weights = super::to_device(&self.device, weights);
        self.device.copy(&weights, &mut self.weights);
        self.device.copy(&weights, &mut self.ema);
        Ok(())
    }
}

impl<D: Device> Measured<D> {
    fn push(&mut self, (log_density, statistics): (D::Buffer, D::Buffer)) {
        self.log_densities.push(log_density);
        self.statistics.push(statistics);
    }
}

/// Some images of a batch, and their labels if present.
pub(super) fn images<'a>(
    pixels: &'a [u8],
    labels: &'a [usize],
    dimensions: usize,
    at: Range<usize>,
) -> (&'a [u8], &'a [usize]) {
    (&pixels[at.start * dimensions..at.end * dimensions], labels.get(at).unwrap_or_default())
}
