//! Depthwise convolutions ([`crate::depthwise`]): image by image, [`LANES`] channels at a time.
//!
//! The channels of an image are copied into an array with a border of zeros, which stays in the first-level cache. There
//! every tap is one multiplication and addition for each of [`PIXELS`] neighbours, whose sums stay in registers. The
//! sums of one image's taps do not depend on the other images, and are added up in the order of the images.

use rayon::prelude::*;

use crate::cpu::isa::{Isa, Task};
use crate::cpu::{Element, Scalar, Workspace};
use crate::depthwise::Depthwise;

/// Channels that are taken at once.
const LANES: usize = 16;

/// Pixels whose sums are in registers at once.
const PIXELS: usize = 8;

/// What a convolution does with the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The convolution, written to the output.
    Forward,
    /// The gradient by the input, added to the output: the taps are read in the opposite order.
    BackwardInput,
}

/// The convolution of `x` with `taps`, or its adjoint.
pub fn convolve<E: Element>(
    work: &Workspace<E>,
    conv: Depthwise,
    x: &[E::Sum],
    taps: &[E::Sum],
    y: &mut [E::Sum],
    goal: Goal,
) {
    let len = conv.grid.pixels() * conv.channels;
    y.par_chunks_mut(len).zip(x.par_chunks(len)).for_each(|(y, x)| {
        let mut padded = Padded::new(conv);
        if work.isa() == Isa::Baseline {
            work.run(Image::<_, false> { conv, x, taps, y, goal, padded: &mut padded });
        } else {
            work.run(Image::<_, true> { conv, x, taps, y, goal, padded: &mut padded });
        }
    });
}

/// Adds the gradient by the taps to `dtaps`.
pub fn by_taps<E: Element>(
    work: &Workspace<E>,
    conv: Depthwise,
    x: &[E::Sum],
    dy: &[E::Sum],
    dtaps: &mut [E::Sum],
) {
    let len = conv.grid.pixels() * conv.channels;
    let parts: Vec<_> = x
        .par_chunks(len)
        .zip(dy.par_chunks(len))
        .map(|(x, dy)| {
            let mut padded = Padded::new(conv);
            let mut sums = work.take_sums(conv.taps_len());
            if work.isa() == Isa::Baseline {
                work.run(Taps::<_, false> { conv, x, dy, sums: &mut sums, padded: &mut padded });
            } else {
                work.run(Taps::<_, true> { conv, x, dy, sums: &mut sums, padded: &mut padded });
            }
            sums
        })
        .collect();
    for part in parts {
        dtaps.iter_mut().zip(&part[..]).for_each(|(to, &sum)| *to += sum);
    }
}

/// `a·b + c`, in one rounding if the instruction set has an instruction for it.
#[inline(always)]
fn multiply_add<T: Scalar, const FUSED: bool>(a: T, b: T, c: T) -> T {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Some channels of an image with a border of zeros, `[height + 2·reach, width + 2·reach, LANES]`; rows are extended so
/// that [`PIXELS`] neighbours of every pixel are there.
struct Padded<T: Scalar> {
    pixels: Vec<[T; LANES]>,
    width: usize,
    reach: usize,
}

impl<T: Scalar> Padded<T> {
    fn new(Depthwise { grid, kernel, .. }: Depthwise) -> Self {
        let reach = kernel / 2;
        let width = grid.width.next_multiple_of(PIXELS) + 2 * reach;
        // Taps beyond a smaller window are computed, and not used.
        let len = (grid.height + 2 * reach) * width + TAPS;
        Self { pixels: vec![[T::zero(); LANES]; len], width, reach }
    }

    /// Copies the channels from `first` on. The border stays 0, and so do the channels beyond the last.
    #[inline(always)]
    fn fill(&mut self, conv: Depthwise, x: &[T], first: usize) {
        let some = LANES.min(conv.channels - first);
        for (y, line) in x.chunks_exact(conv.grid.width * conv.channels).enumerate() {
            let to = &mut self.pixels[(y + self.reach) * self.width + self.reach..];
            for (to, from) in to.iter_mut().zip(line.chunks_exact(conv.channels)) {
                match from[first..].first_chunk::<LANES>() {
                    Some(from) if some == LANES => *to = *from,
                    _ => {
                        to[some..].fill(T::zero());
                        to[..some].copy_from_slice(&from[first..first + some]);
                    }
                }
            }
        }
    }
}

/// `LANES` numbers of a row of `channels`, from `first` on, filled up with zeros.
#[inline(always)]
fn lanes<T: Scalar>(row: &[T], first: usize) -> [T; LANES] {
    match row[first..].first_chunk::<LANES>() {
        Some(lanes) => *lanes,
        None => {
            let mut lanes = [T::zero(); LANES];
            lanes[..row.len() - first].copy_from_slice(&row[first..]);
            lanes
        }
    }
}

/// The convolution of one image.
struct Image<'a, T: Scalar, const FUSED: bool> {
    conv: Depthwise,
    x: &'a [T],
    taps: &'a [T],
    y: &'a mut [T],
    goal: Goal,
    padded: &'a mut Padded<T>,
}

impl<T: Scalar, const FUSED: bool> Task for Image<'_, T, FUSED> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { conv, x, taps, y, goal, padded } = self;
        let Depthwise { grid, channels, kernel } = conv;
        let count = kernel * kernel;
        let mut window = vec![[T::zero(); LANES]; count];
        for first in (0..channels).step_by(LANES) {
            padded.fill(conv, x, first);
            for (t, to) in window.iter_mut().enumerate() {
                let t = if goal == Goal::Forward { t } else { count - 1 - t };
                *to = lanes(&taps[t * channels..(t + 1) * channels], first);
            }
            let some = LANES.min(channels - first);
            for (row, y) in y.chunks_exact_mut(grid.width * channels).enumerate() {
                for left in (0..grid.width).step_by(PIXELS) {
                    let mut sums = [[T::zero(); LANES]; PIXELS];
                    for (ky, window) in window.chunks_exact(kernel).enumerate() {
                        let line = &padded.pixels[(row + ky) * padded.width + left..];
                        for (kx, tap) in window.iter().enumerate() {
                            let Some(line) = line[kx..].first_chunk::<PIXELS>() else { continue };
                            for (sums, pixel) in sums.iter_mut().zip(line) {
                                for l in 0..LANES {
                                    sums[l] = multiply_add::<T, FUSED>(pixel[l], tap[l], sums[l]);
                                }
                            }
                        }
                    }
                    for (sums, y) in sums.iter().zip(y[left * channels..].chunks_exact_mut(channels)) {
                        let y = &mut y[first..first + some];
                        match (y.first_chunk_mut::<LANES>(), goal) {
                            (Some(y), Goal::Forward) => *y = *sums,
                            (_, Goal::Forward) => y.copy_from_slice(&sums[..some]),
                            (_, Goal::BackwardInput) => {
                                y.iter_mut().zip(sums).for_each(|(y, &sum)| *y += sum);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The gradient by the taps of one image.
struct Taps<'a, T: Scalar, const FUSED: bool> {
    conv: Depthwise,
    x: &'a [T],
    dy: &'a [T],
    sums: &'a mut [T],
    padded: &'a mut Padded<T>,
}

/// Taps of a row of the window whose sums are in registers at once.
const TAPS: usize = 7;

impl<T: Scalar, const FUSED: bool> Task for Taps<'_, T, FUSED> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { conv, x, dy, sums, padded } = self;
        let Depthwise { grid, channels, kernel } = conv;
        for first in (0..channels).step_by(LANES) {
            padded.fill(conv, x, first);
            let some = LANES.min(channels - first);
            for ky in 0..kernel {
                for kx in (0..kernel).step_by(TAPS) {
                    let mut of_taps = [[T::zero(); LANES]; TAPS];
                    for (row, dy) in dy.chunks_exact(grid.width * channels).enumerate() {
                        let line = &padded.pixels[(row + ky) * padded.width + kx..];
                        for (x, dy) in dy.chunks_exact(channels).enumerate() {
                            let dy = lanes(dy, first);
                            let Some(line) = line[x..].first_chunk::<TAPS>() else { continue };
                            for (sums, pixel) in of_taps.iter_mut().zip(line) {
                                for l in 0..LANES {
                                    sums[l] = multiply_add::<T, FUSED>(pixel[l], dy[l], sums[l]);
                                }
                            }
                        }
                    }
                    for (t, of_tap) in of_taps.iter().enumerate().take(kernel - kx) {
                        let to = &mut sums[(ky * kernel + kx + t) * channels + first..][..some];
                        to.copy_from_slice(&of_tap[..some]);
                    }
                }
            }
        }
    }
}
