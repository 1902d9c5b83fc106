//! Latents drawn from `N(0, temperature²)` on the device.

use glowflow_kernels::{Device, DeviceError, Stream};

use super::{DeviceEngine, Draw};
use crate::random;

impl<D: Device> DeviceEngine<D> {
    /// Draws the latents of `images` images, level after level.
    pub(super) fn draw_levels(&self, images: usize, draw: Draw) -> Result<Vec<Vec<D::Real>>, DeviceError> {
        let shapes = self.flow.config.latent_shapes().into_iter().enumerate();
        let levels = shapes.map(|(level, shape)| {
            let mut eps = self.device.scratch(images * shape.iter().product::<usize>());
            self.draw_level(images, draw, level, &mut eps);
            self.device.download(&eps)
        });
        levels.collect()
    }

    /// Draws the latents of one level.
    pub(super) fn draw_level(&self, images: usize, draw: Draw, level: usize, eps: &mut D::Buffer) {
        let Draw { seed, first, temperature } = draw;
        let stream = Stream { seed, id: latents_stream(level) + first as u64 };
        self.device.normal(stream, images, temperature, eps);
    }
}

/// The stream of a level's latents for image 0; those of the other images follow.
fn latents_stream(level: usize) -> u64 {
    random::SAMPLES + ((level as u64) << 40)
}
