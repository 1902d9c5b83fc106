//! Draws latents on the device from the base distribution, scaled by the temperature: `N(0, T²)`, or the
//! logistic distribution of scale T.

use glowflow_kernels::expr::{constant, old};
use glowflow_kernels::{DeviceError, Operations, RngStream, Strided, ViewMut};

use super::{DeviceEngine, Draw};
use crate::flow::Base;
use crate::random;

impl<D: Operations> DeviceEngine<D> {
    /// Draws the latents of `images` images, level by level.
    pub(super) fn draw_levels(&self, images: usize, draw: Draw) -> Result<Vec<Vec<D::Real>>, DeviceError> {
        let levels = self.flow.latents().iter().enumerate().map(|(level, latents)| {
            let mut eps = self.device.scratch(images * latents.shape.len());
            self.draw_level(images, draw, level, &mut eps);
            self.device.download(&eps)
        });
        levels.collect()
    }

    /// Draws the latents of one level.
    pub(super) fn draw_level(&self, images: usize, draw: Draw, level: usize, eps: &mut D::Buffer) {
        let Draw { seed, first, temperature } = draw;
        let stream = RngStream { seed, id: latents_stream(level) + first as u64 };
        match self.flow.latents()[level].base {
            Base::Normal => self.device.normal(stream, images, temperature, eps),
            Base::Logistic => {
                // T·log(u/(1 − u)), with u mapped into [2⁻²⁴, 1 − 2⁻²³]: 0 and 1 would give infinities.
                self.device.uniform(stream, images, eps);
                let step = f64::from(1 << 24).recip();
                let u = || constant(1.0 - 2.0 * step) * old() + constant(step);
                let f = constant(temperature) * (u() / (constant(1.0) - u())).ln();
                let len = images * self.flow.latents()[level].shape.len();
                let at = Strided { start: 0, strides: [0, 0, 1] };
                self.device.map(&f, [1, 1, len], &[], ViewMut { buffer: eps, at });
            }
        }
    }
}

/// Stream of a level's latents for image 0; those of the other images follow.
fn latents_stream(level: usize) -> u64 {
    random::SAMPLES + ((level as u64) << 40)
}
