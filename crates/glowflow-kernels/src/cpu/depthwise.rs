//! Kernels of depthwise convolutions, instantiated for each instruction set. Sums stay in registers.

#![allow(unsafe_code)]

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::simd::{F32x8, F32x16, F64x4, F64x8};
use super::simd::{Plain, Vector};
use crate::cpu::Scalar;

/// Channels processed together.
pub const LANES: usize = 16;

/// Number of neighbouring pixels whose sums are held in registers.
pub const PIXELS: usize = 8;

/// Number of taps in a window row whose sums are held in registers.
pub const TAPS: usize = 7;

/// A group of channels of a pixel.
pub type Pixel<T> = [T; LANES];

/// A padded image, row by row; rows are `width` apart.
#[derive(Clone, Copy)]
pub struct Lines<'a, T> {
    pub pixels: &'a [Pixel<T>],
    pub width: usize,
}

/// [`Kernels::convolve`] without its checks.
type Convolve<T> = unsafe fn(Lines<'_, T>, &[Pixel<T>], usize, &mut [Pixel<T>; PIXELS]);

/// [`Kernels::by_taps`] without its checks.
type ByTaps<T> = unsafe fn(Lines<'_, T>, Lines<'_, T>, &mut [Pixel<T>; TAPS]);

/// The kernels of one instruction set.
pub struct Kernels<T> {
    convolve: Convolve<T>,
    by_taps: ByTaps<T>,
}

impl<T: Scalar> Kernels<T> {
    /// `sums[p] = Σ window[kernel·ky + kx]·lines[ky, p + kx]`
    ///
    /// # Panics
    /// If the window is not `[kernel, kernel]`, or the lines are too short.
    pub fn convolve(
        &self,
        lines: Lines<'_, T>,
        window: &[Pixel<T>],
        kernel: usize,
        sums: &mut [Pixel<T>; PIXELS],
    ) {
        assert_eq!(window.len(), kernel * kernel);
        assert!(kernel > 0 && (kernel - 1) * lines.width + kernel - 1 + PIXELS <= lines.pixels.len());
        // SAFETY: kernels are those of an instruction set that the processor has; the last pixel that is read
        // was checked above.
        unsafe { (self.convolve)(lines, window, kernel, sums) }
    }

    /// `sums[t] = Σ dy[y, x]·lines[y, x + t]` over the pixels of `dy`, whose rows are complete.
    ///
    /// # Panics
    /// If the lines are too short.
    pub fn by_taps(&self, lines: Lines<'_, T>, dy: Lines<'_, T>, sums: &mut [Pixel<T>; TAPS]) {
        let height = dy.pixels.len() / dy.width;
        assert!(height > 0 && dy.pixels.len() == height * dy.width);
        assert!((height - 1) * lines.width + dy.width - 1 + TAPS <= lines.pixels.len());
        // SAFETY: as above.
        unsafe { (self.by_taps)(lines, dy, sums) }
    }
}

macro_rules! instantiate {
    ($module:ident, $vector:ty, $features:literal) => {
        mod $module {
            use super::*;
            type V = $vector;
            type T = <$vector as Vector>::Element;

            /// # Safety
            /// The processor has the instruction set; lines and window are as [`Kernels::convolve`] checks.
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn convolve(
                lines: Lines<'_, T>,
                window: &[Pixel<T>],
                kernel: usize,
                sums: &mut [Pixel<T>; PIXELS],
            ) {
                for lane in (0..LANES).step_by(V::LANES) {
                    // SAFETY: a vector lies within a pixel, and the caller has all pixels that are read.
                    unsafe {
                        let mut of_pixels = [V::zero(); PIXELS];
                        for ky in 0..kernel {
                            let line = lines.pixels.as_ptr().add(ky * lines.width).cast::<T>().add(lane);
                            let taps = window.as_ptr().add(ky * kernel).cast::<T>().add(lane);
                            for kx in 0..kernel {
                                let tap = V::factors(taps.add(kx * LANES));
                                for (p, sum) in of_pixels.iter_mut().enumerate() {
                                    *sum = sum.add_products(V::factors(line.add((kx + p) * LANES)), tap);
                                }
                            }
                        }
                        for (sum, to) in of_pixels.into_iter().zip(sums.iter_mut()) {
                            sum.store(to.as_mut_ptr().add(lane));
                        }
                    }
                }
            }

            /// # Safety
            /// The processor has the instruction set; lines are as [`Kernels::by_taps`] checks.
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn by_taps(lines: Lines<'_, T>, dy: Lines<'_, T>, sums: &mut [Pixel<T>; TAPS]) {
                for lane in (0..LANES).step_by(V::LANES) {
                    // SAFETY: as above.
                    unsafe {
                        let mut of_taps = [V::zero(); TAPS];
                        let Lines { pixels, width } = dy;
                        for y in 0..pixels.len() / width {
                            let line = lines.pixels.as_ptr().add(y * lines.width).cast::<T>().add(lane);
                            let dy = pixels.as_ptr().add(y * width).cast::<T>().add(lane);
                            for x in 0..width {
                                let by = V::factors(dy.add(x * LANES));
                                for (t, sum) in of_taps.iter_mut().enumerate() {
                                    *sum = sum.add_products(V::factors(line.add((x + t) * LANES)), by);
                                }
                            }
                        }
                        for (sum, to) in of_taps.into_iter().zip(sums.iter_mut()) {
                            sum.store(to.as_mut_ptr().add(lane));
                        }
                    }
                }
            }

            pub const KERNELS: Kernels<T> = Kernels { convolve, by_taps };
        }
    };
}

#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx512, F32x16, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx512, F64x8, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx2, F32x8, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx2, F64x4, "avx2,fma");
instantiate!(f32_baseline, Plain<f32, 4>, "sse2");
instantiate!(f64_baseline, Plain<f64, 2>, "sse2");

/// The kernels for `f32`, given an instruction set of this processor.
pub fn f32(isa: Isa) -> Kernels<f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => f32_avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => f32_avx2::KERNELS,
        _ => f32_baseline::KERNELS,
    }
}

/// The kernels for `f64`, given an instruction set of this processor.
pub fn f64(isa: Isa) -> Kernels<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => f64_avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => f64_avx2::KERNELS,
        _ => f64_baseline::KERNELS,
    }
}
