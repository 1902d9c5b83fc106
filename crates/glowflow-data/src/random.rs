//! Random numbers as a function of their purpose.
//!
//! Each use has its own ChaCha8 stream, identified by the seed, the purpose and two numbers, so any part of a
//! training run can be computed without the preceding parts. The mapping from random bits to integers is
//! defined here, because that of the libraries may change between versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Purposes of random numbers; changing the values changes the results of a seed.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of images in an epoch.
    Order = 1,
    /// The augmentation of an image.
    Augment = 2,
    /// The choice of held-out images.
    Split = 3,
    /// A random subset of a dataset.
    Sample = 4,
}

/// A stream of random numbers.
pub(crate) struct RngStream(ChaCha8Rng);

impl RngStream {
    /// Stream number `(a, b)` for a purpose.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A uniform number below `n` (bias at most 2⁻⁶⁴ n).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A random permutation of the numbers below `n`.
    pub fn permutation(mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}
