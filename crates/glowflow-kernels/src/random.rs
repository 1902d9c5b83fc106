//! Counter-based random numbers: number `i` of a stream is a pure function of `(seed, stream, i)`.
//!
//! The generator is Philox 4×32 with ten rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011). Resuming a run requires no saved state, threads and devices need no
//! synchronisation, and every device draws the same stream.

use std::f64::consts::TAU;

/// Identifies a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RngStream {
    /// The run's seed.
    pub seed: u64,
    /// Purpose of the numbers; different ids are independent.
    pub id: u64,
}

impl RngStream {
    /// Four independent 32-bit words, block `index` of the stream.
    pub fn block(self, index: u64) -> [u32; 4] {
        let mut counter = [index as u32, (index >> 32) as u32, self.id as u32, (self.id >> 32) as u32];
        let mut key = [self.seed as u32, (self.seed >> 32) as u32];
        for _ in 0..10 {
            let a = u64::from(counter[0]) * 0xD251_1F53;
            let b = u64::from(counter[2]) * 0xCD9E_8D57;
            counter = [
                (b >> 32) as u32 ^ counter[1] ^ key[0],
                b as u32,
                (a >> 32) as u32 ^ counter[3] ^ key[1],
                a as u32,
            ];
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        counter
    }

    /// Four uniform numbers in `[0, 1)`, multiples of 2⁻²⁴ and therefore exact in `f32`.
    pub fn uniform(self, index: u64) -> [f64; 4] {
        self.block(index).map(|word| f64::from(word >> 8) / f64::from(1u32 << 24))
    }

    /// Four standard normal numbers, by the Box-Muller transform.
    pub fn normal(self, index: u64) -> [f64; 4] {
        let [a, b, c, d] = self.uniform(index);
        // 1 − u is in (0, 1], so the logarithm is finite.
        let pair = |u: f64, v: f64| {
            let radius = (-2.0 * (1.0 - u).ln()).sqrt();
            let (sin, cos) = (TAU * v).sin_cos();
            (radius * cos, radius * sin)
        };
        let ((w, x), (y, z)) = (pair(a, b), pair(c, d));
        [w, x, y, z]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of philox4x32-10 from the authors' Random123 distribution.
    #[test]
    fn known_answers() {
        let zero = RngStream { seed: 0, id: 0 };
        assert_eq!(zero.block(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = RngStream { seed: u64::MAX, id: u64::MAX };
        assert_eq!(ones.block(u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn moments() {
        let stream = RngStream { seed: 7, id: 3 };
        let numbers: Vec<f64> = (0..25_000).flat_map(|i| stream.normal(i)).collect();
        let n = numbers.len() as f64;
        let moment = |k: i32| numbers.iter().map(|x| x.powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.02);
        assert!((moment(2) - 1.0).abs() < 0.02);
        assert!((moment(4) - 3.0).abs() < 0.15);
    }
}
