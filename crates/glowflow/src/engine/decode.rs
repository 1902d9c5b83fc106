//! Decoding of a chunk of latents: the inverse direction of the flow, captured and replayed on devices that
//! support it.

use glowflow_kernels::{DeviceError, Grid, Operations, Quantized, Repeated};

use super::{ChunkLatents, DeviceEngine, DeviceImages, ReadImages};
use crate::flow::{Shape, State, Tensor};

/// Decoding of a chunk of a fixed size, with its inputs in persistent buffers.
pub(super) struct Decoding<D: Operations> {
    images: usize,
    latents: Vec<Tensor<D>>,
    labels: D::Buffer,
    /// Computes the images `v`.
    work: Repeated<D, D::Buffer>,
}

/// Images `v` in a device's memory.
struct Images<'a, D: Operations> {
    device: &'a D,
    bits: u32,
    v: &'a D::Buffer,
}

impl<D: Operations> DeviceImages<D::Real> for Images<'_, D> {
    fn pixels(&self) -> Result<Quantized, DeviceError> {
        self.device.quantize(self.v, self.bits)
    }

    fn values(&self) -> Result<Vec<D::Real>, DeviceError> {
        self.device.download(self.v)
    }
}

impl<D: Operations> DeviceEngine<D> {
    pub(super) fn decode_chunk(
        &self,
        images: usize,
        labels: &[usize],
        latents: &ChunkLatents<'_, D::Real>,
        read: &mut ReadImages<'_, D::Real>,
    ) -> Result<(), DeviceError> {
        let device = &self.device;
        let layers = self.decoder();
        // A concurrent caller does not wait; it decodes in separate buffers.
        let mut kept = self.decoding.try_lock().ok();
        let last = kept.as_mut().and_then(|kept| kept.take()).filter(|decoding| decoding.images == images);
        let mut own = None;
        let decoding = kept.as_deref_mut().unwrap_or(&mut own);
        let Decoding { latents: inputs, labels: to, work, .. } =
            decoding.insert(last.unwrap_or_else(|| self.new_decoding(images)));
        for (level, eps) in inputs.iter_mut().enumerate() {
            match latents {
                ChunkLatents::Given(levels) => device.copy(&device.upload(&levels[level]), &mut eps.data),
                ChunkLatents::Drawn(draw) => self.draw_level(images, *draw, level, &mut eps.data),
            }
        }
        device.copy(&self.labels(labels), to);
        let v = work.run(device, |device| {
            let cx = self.context(device);
            let labels = device.copied(to, self.labels_of(images));
            let mut state: State<D> = self.flow.enter(&cx, images, device.scratch(0), labels);
            state.latents = inputs
                .iter()
                .map(|eps| Tensor { data: device.copied(&eps.data, eps.grid.rows() * eps.channels), ..*eps })
                .collect();
            self.flow.decode(&cx, layers, &mut state);
            state.x.data
        });
        read(&Images { device, bits: self.bits, v })
    }

    fn new_decoding(&self, images: usize) -> Decoding<D> {
        let latents = self.flow.latents().iter().map(|latents| {
            let Shape { height, width, channels } = latents.shape;
            let grid = Grid { batch: images, height, width };
            Tensor { grid, channels, data: self.device.scratch(grid.rows() * channels) }
        });
        Decoding {
            images,
            latents: latents.collect(),
            labels: self.device.scratch(self.labels_of(images)),
            work: Repeated::new(),
        }
    }
}
