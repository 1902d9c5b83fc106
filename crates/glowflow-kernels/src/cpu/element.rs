//! Element types of the matrices in a product: the scalars themselves, or a shorter format whose products are
//! summed in `f32`.

use half::bf16;

use super::depthwise;
use super::elementary::Elementary;
use super::isa::Isa;
use super::product::{self, KernelSet};
use crate::real::Real;

/// A number in memory, and the accumulation of its products.
pub trait Element: bytemuck::Pod + Default + Send + Sync {
    /// The type of sums, biases and gradients.
    type Sum: Scalar;
    /// Number of adjacent elements per column of a packed matrix, for an instruction that multiplies that
    /// many pairs and sums their products.
    const GROUP: usize;
    /// A packed matrix is padded with rows of zeros to a multiple of this number, which one tile instruction
    /// consumes.
    const ROWS_MULTIPLE: usize;

    /// Rounds to the nearest number of this type.
    fn of_sum(sum: Self::Sum) -> Self;
    /// Converts exactly.
    fn to_sum(self) -> Self::Sum;
    /// Rounds the concatenated rows of a group and interleaves them, so that the elements of a column are
    /// adjacent.
    fn side_by_side(rows: &[Self::Sum], to: &mut [Self]);
    /// The instruction sets of this processor with kernels, best first.
    fn available() -> Vec<Isa>;
    #[doc(hidden)]
    fn kernels(isa: Isa) -> KernelSet<Self>;
}

/// A scalar type that the processor computes in.
pub trait Scalar: Real + Element<Sum = Self> + Elementary {
    /// Element type of the coupling networks' matrices in a shorter format.
    type Narrow: Element<Sum = Self>;

    /// The kernels of depthwise convolutions for the best instruction set.
    #[doc(hidden)]
    fn depthwise() -> depthwise::Kernels<Self>;
}

impl Scalar for f32 {
    type Narrow = bf16;

    fn depthwise() -> depthwise::Kernels<Self> {
        depthwise::f32(Isa::available()[0])
    }
}

impl Scalar for f64 {
    type Narrow = Self;

    fn depthwise() -> depthwise::Kernels<Self> {
        depthwise::f64(Isa::available()[0])
    }
}

macro_rules! scalar {
    ($scalar:ident) => {
        impl Element for $scalar {
            type Sum = Self;
            const GROUP: usize = 1;
            const ROWS_MULTIPLE: usize = 1;

            fn of_sum(sum: Self) -> Self {
                sum
            }
            fn to_sum(self) -> Self {
                self
            }
            #[inline(always)]
            fn side_by_side(rows: &[Self], to: &mut [Self]) {
                to.copy_from_slice(rows);
            }
            fn available() -> Vec<Isa> {
                Isa::available()
            }
            fn kernels(isa: Isa) -> KernelSet<Self> {
                product::$scalar(isa)
            }
        }
    };
}

scalar!(f32);
scalar!(f64);

impl Element for bf16 {
    type Sum = f32;
    const GROUP: usize = 2;
    const ROWS_MULTIPLE: usize = 32;

    #[inline(always)]
    fn of_sum(sum: f32) -> Self {
        // Round to nearest, ties to even, without a branch, so that the compiler vectorises it. NaN stays
        // NaN.
        let bits = sum.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        Self::from_bits(if sum.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded })
    }
    #[inline(always)]
    fn to_sum(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn side_by_side(rows: &[f32], to: &mut [Self]) {
        // Pairs are written as one number: the compiler would split pairs of stores.
        let (first, second) = rows.split_at(rows.len() / 2);
        let bits = |x: &f32| u32::from(Self::of_sum(*x).to_bits());
        for ((to, first), second) in to.chunks_exact_mut(2).zip(first).zip(second) {
            let pair = bits(first) | bits(second) << 16;
            to.copy_from_slice(bytemuck::cast_slice(&pair.to_le_bytes()));
        }
    }
    fn available() -> Vec<Isa> {
        Isa::available_for_bf16()
    }
    fn kernels(isa: Isa) -> KernelSet<Self> {
        product::bf16(isa)
    }
}
