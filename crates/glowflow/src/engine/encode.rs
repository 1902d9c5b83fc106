//! A chunk of images to latents: dequantisation and the flow forward.

use glowflow_kernels::{Device, DeviceError, Noise};

use super::{DeviceEngine, EncodedChunk};

impl<D: Device> DeviceEngine<D> {
    pub(super) fn encode_chunk(
        &self,
        pixels: &[u8],
        labels: &[usize],
        noise: Noise<'_, D::Real>,
    ) -> Result<EncodedChunk<D::Real>, DeviceError> {
        let (device, config) = (&self.device, &self.flow.config);
        let layers = self.encoder();
        let mut v = device.scratch(pixels.len());
        device.dequantize(pixels, config.bits(), noise, &mut v);
        let images = pixels.len() / config.dimensions();
        let mut state = self.flow.enter(device, images, v, self.labels(labels));
        self.flow.encode(device, layers, &mut state);
        let log_density = device.download(&state.logp)?;
        let latents = state.latents.iter().map(|eps| device.download(&eps.data)).collect::<Result<_, _>>()?;
        Ok(EncodedChunk { latents, log_density })
    }
}
