//! Forward and backward pass of a part of a batch, and its dequantisation noise.

use glowflow_kernels::{Noise, Operations, Repeated, RngStream};

use super::trainer::{Buckets, Link, Slices, Trainer};
use crate::Error;
use crate::flow::{Context, Mode, Save, State};
use crate::model::{Flow, class_numbers};
use crate::models::Architecture;
use crate::random;

/// Forward and backward pass on some images of a batch, from these buffers to the gradient. A device may
/// capture it.
pub(super) struct Pass<D: Operations> {
    /// Number of images, and of those in the whole batch, which determines their weight.
    images: (usize, usize),
    /// Images `v`, or bin centres for a dequantiser.
    v: D::Buffer,
    /// Uniform noise for a dequantiser; empty without one.
    u: D::Buffer,
    labels: D::Buffer,
    /// Computes the log-likelihoods and statistics of these images.
    work: Repeated<D, (D::Buffer, D::Buffer)>,
}

/// The sums over ranks while a gradient is computed.
pub(super) enum Sums<'a, D: Operations> {
    /// Nothing.
    None,
    /// Slices of the gradient, through the host's memory.
    Host(&'a mut Buckets<D>),
    /// The whole gradient, in the memory of devices.
    Devices(&'a Link<D>),
}

/// Number of noise values that the dequantiser reads for `pixels` pixels.
fn noises<D: Operations>(flow: &Flow<D>, pixels: usize) -> usize {
    if flow.dequantizer().is_some() { pixels } else { 0 }
}

/// Writes images with uniform noise, numbers `first` onwards of a stream, to `v`. For a flow with a
/// dequantiser, writes bin centres to `v` and the noise, the same numbers on `[0, 1)`, to `u`.
fn dequantize<D: Operations>(
    device: &D,
    flow: &Flow<D>,
    pixels: &[u8],
    bits: u32,
    (noise, first): (RngStream, u64),
    (v, u): (&mut D::Buffer, &mut D::Buffer),
) {
    if flow.dequantizer().is_none() {
        return device.dequantize(pixels, bits, Noise::Uniform(noise, first), v);
    }
    device.dequantize(pixels, bits, Noise::Midpoint, v);
    device.uniform_from(noise, first, u);
}

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Adds the gradient of a part of a batch, and returns its log-likelihoods and statistics. `first` is the
    /// position of its first image in the batch. `sums` get slices of the gradient as soon as they are final.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing.
    pub(super) fn pass(
        &mut self,
        pixels: &[u8],
        labels: &[usize],
        images: (usize, usize),
        first: usize,
        sums: Sums<'_, D>,
    ) -> Result<(D::Buffer, D::Buffer), Error> {
        let (mut buckets, link) = match sums {
            Sums::None => (None, None),
            Sums::Host(buckets) => (Some(buckets), None),
            Sums::Devices(link) => (None, Some(link)),
        };
        let (device, model) = (&self.device, &self.config.model);
        let noise = self.noise(first);
        let noises = noises(&self.flow, pixels.len());
        let at = self.passes.iter().position(|pass| pass.images == images).unwrap_or_else(|| {
            self.passes.push(Pass {
                images,
                v: device.scratch(pixels.len()),
                u: device.scratch(noises),
                labels: device.scratch(model.labels_of(images.0)),
                work: Repeated::new(),
            });
            self.passes.len() - 1
        });
        let Pass { v, u, labels: to, work, .. } = &mut self.passes[at];
        dequantize(device, &self.flow, pixels, model.bits(), noise, (&mut *v, &mut *u));
        device.copy(&device.upload(&class_numbers(labels)), to);

        let (flow, params, buffers, gradient) =
            (&self.flow, &self.weights, &self.buffers, &mut self.gradient);
        let dlogp = model.bits_per_dim(1.0) / images.1 as f64;
        let backprop = self.config.train.backprop;
        let run = |device: &D| {
            let cx = Context { device, params, buffers, mode: Mode::Train };
            let (v, labels) = (device.copied(v, pixels.len()), device.copied(to, model.labels_of(images.0)));
            let mut state = flow.enter(&cx, images.0, v, labels);
            let dequantizer = flow.dequantizer().map(|dequantizer| {
                let saved = device.within(|| dequantizer.forward(&cx, u, &mut state, backprop.save()));
                (dequantizer, saved)
            });
            let forward = flow.forward(&cx, state, backprop);
            let log_density = device.copied(&forward.state.logp, images.0);
            let statistics = device.copied(&forward.state.statistics, flow.layout.buffers_len());
            let mut slices = link.map(|link| Slices::new(link, flow));
            let mut done = |device: &D, gradient: &mut D::Buffer, start: usize| {
                if let Some(buckets) = &mut buckets {
                    buckets.ready(device, gradient, start);
                }
                if let Some(slices) = &mut slices {
                    slices.ready(device, gradient, start);
                }
            };
            let (_, dv) = flow.backward_reporting(&cx, forward, dlogp, gradient, &mut done);
            if let Some((dequantizer, saved)) = dequantizer {
                device.within(|| dequantizer.backward(&cx, saved, &dv, dlogp, gradient));
            }
            if let Some(slices) = slices {
                slices.finish(device, gradient);
            }
            (log_density, statistics)
        };
        let agree = |captured: bool| link.map_or(Ok(captured), |link| link.agree(captured));
        let (log_density, statistics) = work.run_agreed(device, run, agree)?;
        // The next pass will write there again.
        Ok((device.copied(log_density, images.0), device.copied(statistics, flow.layout.buffers_len())))
    }

    /// Fresh noise for this step, and the offset of an image's noise, given its position in the batch. It
    /// does not depend on the division of the batch into parts.
    fn noise(&self, first: usize) -> (RngStream, u64) {
        let id = random::TRAINING_NOISE + self.progress.step;
        let numbers = first as u64 * self.config.model.dimensions() as u64;
        (RngStream { seed: self.config.train.seed, id }, numbers)
    }

    /// Initial state of the flow for the first images of a batch, with fresh noise.
    pub(super) fn enter(&self, pixels: &[u8], labels: &[usize]) -> State<D> {
        let (u, mut state) = self.arrive(0, pixels, labels);
        if let Some(dequantizer) = self.flow.dequantizer() {
            let cx = self.context();
            self.device.within(|| dequantizer.forward(&cx, &u, &mut state, Save::Minimum));
        }
        state
    }

    /// Images of a batch with fresh noise, or the noise for the dequantiser and the bin centres. `first` is
    /// the position of the first image in the batch.
    pub(super) fn arrive(&self, first: usize, pixels: &[u8], labels: &[usize]) -> (D::Buffer, State<D>) {
        let count = pixels.len() / self.config.model.dimensions();
        let mut v = self.device.scratch(pixels.len());
        let mut u = self.device.scratch(noises(&self.flow, pixels.len()));
        let noise = self.noise(first);
        dequantize(&self.device, &self.flow, pixels, self.config.model.bits(), noise, (&mut v, &mut u));
        let labels = self.device.upload(&class_numbers(labels));
        (u, self.flow.enter(&self.context(), count, v, labels))
    }
}
