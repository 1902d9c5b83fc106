//! A chunk of images to latents: dequantisation and the flow forward.

use glowflow_kernels::{DeviceError, Noise, Operations};

use super::{DeviceEngine, EncodedChunk};

impl<D: Operations> DeviceEngine<D> {
    pub(super) fn encode_chunk(
        &self,
        pixels: &[u8],
        labels: &[usize],
        noise: Noise<'_, D::Real>,
    ) -> Result<EncodedChunk<D::Real>, DeviceError> {
        let (device, cx) = (&self.device, self.context(&self.device));
        let layers = self.encoder();
        let mut v = device.scratch(pixels.len());
        device.dequantize(pixels, self.bits, noise, &mut v);
        let images = pixels.len() / self.flow.image().len();
        let mut state = self.flow.enter(&cx, images, v, self.labels(labels));
        self.flow.encode(&cx, layers, &mut state);
        let log_density = device.download(&state.logp)?;
        let latents = state.latents.iter().map(|eps| device.download(&eps.data)).collect::<Result<_, _>>()?;
        Ok(EncodedChunk { latents, log_density })
    }
}
