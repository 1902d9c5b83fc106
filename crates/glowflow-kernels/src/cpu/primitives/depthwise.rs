//! Depthwise convolutions ([`crate::depthwise`]): image by image, [`LANES`] channels at a time.
//!
//! The channels of an image are copied into a zero-padded array, which stays in the first-level cache. Every
//! tap is then one multiply-add for each of [`PIXELS`] neighbours ([`crate::cpu::depthwise`]). The tap sums
//! of an image do not depend on the other images, and are accumulated in the order of the images.

use rayon::prelude::*;

use crate::cpu::depthwise::{Kernels, LANES, Lines, PIXELS, Pixel, TAPS};
use crate::cpu::{Element, Scalar, Workspace};
use crate::depthwise::Depthwise;

/// The operation that a convolution performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The convolution, written to the output.
    Forward,
    /// The input gradient, added to the output: the taps are reversed.
    BackwardInput,
}

/// The convolution of `x` with `taps`, or its adjoint.
pub fn convolve<T: Scalar>(conv: Depthwise, x: &[T], taps: &[T], y: &mut [T], goal: Goal) {
    let (len, kernels) = (conv.grid.pixels() * conv.channels, T::depthwise());
    y.par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .for_each(|(y, x)| of_image(&kernels, conv, x, taps, y, goal));
}

/// Adds the gradient of the taps to `dtaps`.
pub fn by_taps<E: Element>(
    work: &Workspace<E>,
    conv: Depthwise,
    x: &[E::Sum],
    dy: &[E::Sum],
    dtaps: &mut [E::Sum],
) {
    let (len, kernels) = (conv.grid.pixels() * conv.channels, E::Sum::depthwise());
    let parts: Vec<_> = x
        .par_chunks(len)
        .zip(dy.par_chunks(len))
        .map(|(x, dy)| {
            let mut sums = work.take_sums(conv.taps_len());
            taps_of_image(&kernels, conv, x, dy, &mut sums);
            sums
        })
        .collect();
    for part in parts {
        dtaps.iter_mut().zip(&part[..]).for_each(|(to, &sum)| *to += sum);
    }
}

/// A group of channels of an image, zero-padded.
struct Padded<T: Scalar> {
    pixels: Vec<Pixel<T>>,
    width: usize,
    reach: usize,
}

impl<T: Scalar> Padded<T> {
    fn new(Depthwise { grid, kernel, .. }: Depthwise) -> Self {
        let reach = kernel / 2;
        // Whole blocks of neighbours and whole rows of taps are computed.
        let width = grid.width.next_multiple_of(PIXELS) + 2 * reach;
        let len = (grid.height + 2 * reach) * width + TAPS;
        Self { pixels: vec![[T::zero(); LANES]; len], width, reach }
    }

    /// Copies the channels from `first` on. The padding stays 0.
    fn fill(&mut self, conv: Depthwise, x: &[T], first: usize) {
        for (y, line) in x.chunks_exact(conv.grid.width * conv.channels).enumerate() {
            let to = &mut self.pixels[(y + self.reach) * self.width + self.reach..];
            for (to, from) in to.iter_mut().zip(line.chunks_exact(conv.channels)) {
                *to = lanes(from, first);
            }
        }
    }

    /// The rows from `line` on, starting at a column.
    fn lines(&self, line: usize, column: usize) -> Lines<'_, T> {
        Lines { pixels: &self.pixels[line * self.width + column..], width: self.width }
    }
}

/// The channels of a pixel from `first` on, padded with zeros.
#[inline(always)]
fn lanes<T: Scalar>(pixel: &[T], first: usize) -> Pixel<T> {
    match pixel[first..].first_chunk::<LANES>() {
        Some(lanes) => *lanes,
        None => {
            let mut lanes = [T::zero(); LANES];
            lanes[..pixel.len() - first].copy_from_slice(&pixel[first..]);
            lanes
        }
    }
}

fn of_image<T: Scalar>(kernels: &Kernels<T>, conv: Depthwise, x: &[T], taps: &[T], y: &mut [T], goal: Goal) {
    let Depthwise { grid, channels, kernel } = conv;
    let mut padded = Padded::new(conv);
    let mut window = vec![[T::zero(); LANES]; kernel * kernel];
    let mut sums = [[T::zero(); LANES]; PIXELS];
    for first in (0..channels).step_by(LANES) {
        padded.fill(conv, x, first);
        window.iter_mut().zip(taps.chunks_exact(channels)).for_each(|(to, tap)| *to = lanes(tap, first));
        if goal == Goal::BackwardInput {
            window.reverse();
        }
        let some = LANES.min(channels - first);
        for (row, y) in y.chunks_exact_mut(grid.width * channels).enumerate() {
            for left in (0..grid.width).step_by(PIXELS) {
                kernels.convolve(padded.lines(row, left), &window, kernel, &mut sums);
                for (sums, y) in sums.iter().zip(y[left * channels..].chunks_exact_mut(channels)) {
                    let y = &mut y[first..first + some];
                    match goal {
                        Goal::Forward => y.copy_from_slice(&sums[..some]),
                        Goal::BackwardInput => y.iter_mut().zip(sums).for_each(|(y, &sum)| *y += sum),
                    }
                }
            }
        }
    }
}

fn taps_of_image<T: Scalar>(kernels: &Kernels<T>, conv: Depthwise, x: &[T], dy: &[T], to: &mut [T]) {
    let Depthwise { grid, channels, kernel } = conv;
    let mut padded = Padded::new(conv);
    let mut pixels = vec![[T::zero(); LANES]; grid.pixels()];
    let mut sums = [[T::zero(); LANES]; TAPS];
    for first in (0..channels).step_by(LANES) {
        padded.fill(conv, x, first);
        pixels.iter_mut().zip(dy.chunks_exact(channels)).for_each(|(to, dy)| *to = lanes(dy, first));
        let some = LANES.min(channels - first);
        for ky in 0..kernel {
            for kx in (0..kernel).step_by(TAPS) {
                let dy = Lines { pixels: &pixels, width: grid.width };
                kernels.by_taps(padded.lines(ky, kx), dy, &mut sums);
                for (t, sums) in sums.iter().enumerate().take(kernel - kx) {
                    to[(ky * kernel + kx + t) * channels + first..][..some].copy_from_slice(&sums[..some]);
                }
            }
        }
    }
}
