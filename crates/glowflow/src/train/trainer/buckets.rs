//! All-reduce of a gradient over ranks, in buckets that are in flight during the backward pass.
//!
//! Parameters are stored in the order of the layers. After the backward pass of a layer, the gradient of its
//! parameters and of those of all later layers is final. A bucket is therefore a slice of the gradient that
//! ends where the previously started one begins. Buckets depend on the layout alone and are the same on all
//! ranks. They are summed in a fixed tree, so the sums do not depend on the buckets.

use std::ops::Range;
use std::sync::Arc;

use glowflow_kernels::{DeviceError, Operations, Real};
use glowflow_ranks::{Bucket, Ranks};

use super::subtotals::Subtotals;
use crate::Error;
use crate::model::Flow;

/// Minimum count of numbers in a bucket (4 MiB); a layer may have more.
const BUCKET: usize = 1 << 20;

/// Buckets of one step.
pub struct Buckets<D: Operations> {
    ranks: Arc<dyn Ranks>,
    /// Subtotals of this rank's other parts.
    subtotals: Subtotals<D>,
    /// Buckets from this offset on have been started.
    end: usize,
    /// Parameters outside the layers: those of a dequantiser.
    rest: Range<usize>,
    started: usize,
    failure: Option<DeviceError>,
}

impl<D: Operations> Buckets<D> {
    /// Creates the buckets of a flow's gradient. The subtotals are added to the last part on this rank.
    pub fn new(ranks: Arc<dyn Ranks>, flow: &Flow<D>, subtotals: Subtotals<D>) -> Self {
        let end = flow.layers_end();
        Self { ranks, subtotals, end, rest: end..flow.layout.len(), started: 0, failure: None }
    }

    /// Starts a bucket if there are enough numbers. The gradient is final from `start` on.
    pub fn ready(&mut self, device: &D, gradient: &mut D::Buffer, start: usize) {
        if self.end.saturating_sub(start) >= BUCKET || start == 0 {
            self.start(device, gradient, start..self.end);
            self.end = self.end.min(start);
        }
    }

    /// Starts the remaining bucket. The whole gradient is final.
    pub fn flush(&mut self, device: &D, gradient: &mut D::Buffer, flow: &Flow<D>) {
        for &start in flow.starts().iter().rev() {
            self.ready(device, gradient, start);
        }
        self.start(device, gradient, 0..self.end);
        self.end = 0;
        self.start(device, gradient, self.rest.clone());
    }

    fn start(&mut self, device: &D, gradient: &mut D::Buffer, range: Range<usize>) {
        if range.is_empty() || self.failure.is_some() {
            return;
        }
        self.subtotals.add_to(device, gradient, range.clone());
        match device.read(gradient, range.clone()) {
            Ok(values) => {
                self.ranks.start(Bucket { at: range.start, values: D::Real::into_file(values) });
                self.started += 1;
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Waits for all sums and writes them to the gradient.
    ///
    /// # Errors
    /// [`Error::Device`], or [`Error::Ranks`] if a rank is missing: the gradient is then invalid.
    pub fn finish(self, device: &D, gradient: &mut D::Buffer) -> Result<(), Error> {
        if let Some(error) = self.failure {
            return Err(error.into());
        }
        for _ in 0..self.started {
            let Bucket { at, values } = self.ranks.finished()?;
            device.write(gradient, at, &D::Real::of_file(values));
        }
        Ok(())
    }
}
