//! Conversion of pixels to numbers and back, and normal numbers (`data.cu`).

use super::driver::{Argument, Launch};
use super::lengths::holds;
use super::queue::launch;
use super::{Buffer, Cuda};
use crate::device::DeviceError;
use crate::pixels::{Noise, Quantized};
use crate::random::RngStream;

/// See [`Primitives::dequantize`](crate::Primitives::dequantize).
pub fn dequantize(gpu: &Cuda, pixels: &[u8], bits: u32, noise: Noise<'_, f32>, v: &mut Buffer) {
    holds("v", v, pixels.len());
    if let Noise::Given(noise) = noise {
        holds("v", v, noise.len());
        assert!(noise.len() >= pixels.len(), "{} numbers of noise for {} pixels", noise.len(), pixels.len());
    }
    gpu.attempt(|queue| {
        let none = RngStream { seed: 0, id: 0 };
        let (mode, RngStream { seed, id }, first) = match noise {
            Noise::Midpoint => (0, none, 0u64),
            Noise::Uniform(stream, first) => (1, stream, first),
            Noise::Given(noise) => {
                queue.stream.write(noise, v.address())?;
                (2, none, 0)
            }
        };
        let count = pixels.len();
        let pixels = queue.send(pixels)?;
        launch!(
            queue, queue.kernels().dequantize, Launch::of(count.div_ceil(4));
            count, pixels.address, bits as i32, mode, seed, id, first, v.address()
        )
    });
}

/// See [`Primitives::quantize`](crate::Primitives::quantize).
pub fn quantize(gpu: &Cuda, v: &Buffer, bits: u32) -> Result<Quantized, DeviceError> {
    gpu.report(|queue| {
        // The pixels are followed by a word that stays 0 if all numbers are finite, so that one copy
        // transfers both.
        let word = v.len().next_multiple_of(4);
        let on_device = queue.pool.take(word + 4)?;
        let not_finite = on_device.address + word as u64;
        queue.stream.clear(not_finite, 4)?;
        launch!(
            queue, queue.kernels().quantize, Launch::of(v.len().div_ceil(4));
            v.len(), bits as i32, v.address(), on_device.address, not_finite
        )?;
        let mut pixels = queue.receive(on_device.address, word + 4)?;
        let finite = pixels[word..] == [0; 4];
        pixels.truncate(v.len());
        Ok(Quantized { pixels, finite })
    })
}

/// See [`Primitives::normal`](crate::Primitives::normal).
pub fn normal(gpu: &Cuda, stream: RngStream, images: usize, scale: f64, out: &mut Buffer) {
    gpu.attempt(|queue| {
        let length = out.len() / images.max(1);
        launch!(
            queue, queue.kernels().normal, Launch::of(images * length.div_ceil(4));
            images, length, stream.seed, stream.id, scale, out.address()
        )
    });
}
