//! Division by multiplication, for kernels that divide indices by numbers known on the host.
//!
//! `⌊n / d⌋ = ⌊n · m / 2^(32 + s)⌋` with `m = ⌈2^(32 + s) / d⌉`, exact for `n < 2^31` where `2^(s + 1) ≥ d`
//! (Granlund and Montgomery 1994, "Division by invariant integers using multiplication").

use bytemuck::{Pod, Zeroable};

use super::driver::Argument;
use crate::shape::Grid;

/// A divisor; as in `common.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Divisor {
    multiplier: u32,
    shift: u32,
    value: i32,
}

impl Divisor {
    /// `value` is at least 1.
    pub fn new(value: usize) -> Self {
        let divisor = value as u64;
        // Division by 1 has a special multiplier, because 2^32 does not fit 32 bits.
        let (multiplier, shift) = match divisor {
            0 | 1 => (0, 0),
            _ => {
                let shift = divisor.next_power_of_two().ilog2() - 1;
                ((1u64 << (32 + shift)).div_ceil(divisor) as u32, shift)
            }
        };
        Self { multiplier, shift, value: value as i32 }
    }

    /// Divides like the kernels.
    #[cfg(test)]
    fn divide(self, n: u32) -> u32 {
        match self.multiplier {
            0 => n,
            multiplier => ((u64::from(n) * u64::from(multiplier)) >> 32) as u32 >> self.shift,
        }
    }
}

impl From<Divisor> for Argument<'_> {
    fn from(divisor: Divisor) -> Self {
        Self::of(divisor)
    }
}

/// An image's height and width; as in `common.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Plane {
    height: Divisor,
    width: Divisor,
}

impl Plane {
    pub fn of(grid: Grid) -> Self {
        Self { height: Divisor::new(grid.height), width: Divisor::new(grid.width) }
    }
}

impl From<Plane> for Argument<'_> {
    fn from(plane: Plane) -> Self {
        Self::of(plane)
    }
}

#[cfg(test)]
mod tests {
    use super::Divisor;
    use crate::random::RngStream;

    #[test]
    fn quotients_are_exact() {
        const MOST: u32 = i32::MAX as u32;
        let random = RngStream { seed: 1, id: 0 };
        let divisors = (1..600).chain((0..200).map(|i| (random.block(i)[0] >> 1).max(1)));
        for d in divisors.chain([MOST, MOST - 1, 1 << 30, (1 << 30) + 1, (1 << 30) - 1]) {
            let divisor = Divisor::new(d as usize);
            let multiples = (0..=MOST / d).step_by((MOST / d / 50).max(1) as usize).map(|q| q * d);
            let near = multiples.flat_map(|n| [n.saturating_sub(1), n, (n + 1).min(MOST)]);
            for n in near.chain((0..50).map(|i| random.block(i)[1] >> 1)).chain([MOST]) {
                assert_eq!(divisor.divide(n), n / d, "{n} / {d}");
            }
        }
    }
}
