//! Encoding of a chunk of images: dequantisation and the forward direction of the flow.

use glowflow_kernels::{DeviceError, Noise, Operations};

use super::{DeviceEngine, EncodedChunk, EntryNoise};
use crate::flow::{Save, State};

impl<D: Operations> DeviceEngine<D> {
    pub(super) fn encode_chunk(
        &self,
        pixels: &[u8],
        labels: &[usize],
        noise: EntryNoise<'_, D::Real>,
    ) -> Result<EncodedChunk<D::Real>, DeviceError> {
        let (device, cx) = (&self.device, self.context(&self.device));
        let layers = self.encoder();
        let mut state = match (noise, self.flow.dequantizer()) {
            (EntryNoise::Fixed(noise), _) => self.enter(pixels, labels, noise),
            (EntryNoise::Variational(stream), None) => self.enter(pixels, labels, Noise::Uniform(stream, 0)),
            (EntryNoise::Variational(stream), Some(dequantizer)) => {
                let mut state = self.enter(pixels, labels, Noise::Midpoint);
                let mut u = device.scratch(pixels.len());
                device.uniform(stream, 1, &mut u);
                device.within(|| dequantizer.forward(&cx, &u, &mut state, Save::Minimum));
                state
            }
        };
        self.flow.encode(&cx, layers, &mut state);
        let log_density = device.download(&state.logp)?;
        let latents = state.latents.iter().map(|eps| device.download(&eps.data)).collect::<Result<_, _>>()?;
        Ok(EncodedChunk { latents, log_density })
    }

    pub(super) fn typical_chunk(&self, pixels: &[u8]) -> Result<Option<Vec<D::Real>>, DeviceError> {
        let Some(dequantizer) = self.flow.dequantizer() else { return Ok(None) };
        let (device, cx) = (&self.device, self.context(&self.device));
        let state = self.enter(pixels, &[], Noise::Midpoint);
        let noise = device.within(|| dequantizer.typical(&cx, state.x));
        device.download(&noise).map(Some)
    }

    /// Initial state of the flow for images with this noise.
    fn enter(&self, pixels: &[u8], labels: &[usize], noise: Noise<'_, D::Real>) -> State<D> {
        let mut v = self.device.scratch(pixels.len());
        self.device.dequantize(pixels, self.bits, noise, &mut v);
        let images = pixels.len() / self.flow.image().len();
        self.flow.enter(&self.context(&self.device), images, v, self.labels(labels))
    }
}
