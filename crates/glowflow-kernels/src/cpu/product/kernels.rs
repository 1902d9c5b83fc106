//! The kernels, instantiated for each instruction set.

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::{Out, Packed, forward, interleaved, transposed};
use crate::cpu::element::Element;
use crate::cpu::isa::Isa;
use crate::cpu::panels::View;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Bf16x16, F32x8, F32x16, F64x4, F64x8};
use crate::cpu::simd::{Plain, Square, Sum, Vector};

/// [`super::product`] without its checks.
type Forward<E> = unsafe fn(usize, &[E], &Packed<E>, &mut Out<'_, E>);

/// One task of [`super::transposed_products`], without its checks: the rows of `c` for several panels of `a`,
/// starting at the given one; the number of panels follows from the number of column sums.
type Transposed<E> =
    unsafe fn(View<'_, E>, View<'_, E>, usize, &mut [<E as Element>::Sum], &mut [<E as Element>::Sum]);

/// The kernels of one instruction set.
#[doc(hidden)]
pub struct KernelSet<E: Element> {
    /// Columns per panel.
    pub panel: usize,
    /// Maximum number of panels of `a` per task of a weight gradient.
    pub at_once: usize,
    pub forward: Forward<E>,
    pub transposed: Transposed<E>,
    /// Transposes a square of sums.
    pub transpose: unsafe fn(&mut Square<E::Sum>),
}

/// Instantiates the kernels for a vector: rows of a block of sums, and the module of the weight gradient's
/// kernel.
macro_rules! instantiate {
    ($module:ident, $vector:ty, $rows:literal, $gradient:ident, $features:literal) => {
        mod $module {
            use super::*;
            type Element = <$vector as Vector>::Element;
            /// Columns per panel: two vectors.
            const PANEL: usize = 2 * <$vector as Vector>::LANES;

            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn forward(rows: usize, a: &[Element], b: &Packed<Element>, to: &mut Out<'_, Element>) {
                // SAFETY: the caller keeps the same contract.
                unsafe { forward::forward::<$vector, $rows, PANEL>(rows, a, b, to) }
            }

            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn transposed(
                a: View<'_, Element>,
                b: View<'_, Element>,
                panel: usize,
                c: &mut [Sum<$vector>],
                sums: &mut [Sum<$vector>],
            ) {
                // SAFETY: the caller keeps the same contract.
                unsafe { $gradient::transposed::<$vector, $rows, PANEL>(a, b, panel, c, sums) }
            }

            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn transpose(square: &mut Square<Sum<$vector>>) {
                // SAFETY: the caller keeps the same contract.
                unsafe { <$vector>::transpose(square) }
            }

            pub const SET: KernelSet<Element> =
                KernelSet { panel: PANEL, at_once: $gradient::AT_ONCE, forward, transposed, transpose };
        }
    };
}

/// The same for tile instructions; the vector type does everything else.
#[cfg(target_arch = "x86_64")]
macro_rules! instantiate_tiles {
    ($module:ident, $vector:ty, $features:literal) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            unsafe fn forward(rows: usize, a: &[bf16], b: &Packed<bf16>, to: &mut Out<'_, bf16>) {
                // SAFETY: the caller keeps the same contract.
                unsafe { amx::forward::<$vector>(rows, a, b, to) }
            }

            #[target_feature(enable = $features)]
            unsafe fn transposed(
                a: View<'_, bf16>,
                b: View<'_, bf16>,
                panel: usize,
                c: &mut [f32],
                sums: &mut [f32],
            ) {
                // SAFETY: the caller keeps the same contract.
                unsafe { amx::transposed::<$vector>(a, b, panel, c, sums) }
            }

            #[target_feature(enable = $features)]
            unsafe fn transpose(square: &mut Square<f32>) {
                // SAFETY: the caller keeps the same contract.
                unsafe { <$vector>::transpose(square) }
            }

            pub const SET: KernelSet<bf16> = KernelSet {
                panel: amx::PANEL,
                at_once: interleaved::AT_ONCE,
                forward,
                transposed,
                transpose,
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
instantiate_tiles!(bf16_amx, Bf16x16, "avx512f,avx512bw,avx512bf16,avx2,fma");
#[cfg(all(test, target_arch = "x86_64"))]
instantiate_tiles!(bf16_amx_emulated, Plain<bf16, 16>, "sse2");
#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx512, F32x16, 8, transposed, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx512, F64x8, 8, transposed, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(bf16_avx512, Bf16x16, 8, interleaved, "avx512f,avx512bw,avx512bf16,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx2, F32x8, 6, transposed, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx2, F64x4, 6, transposed, "avx2,fma");
instantiate!(f32_baseline, Plain<f32, 4>, 4, transposed, "sse2");
instantiate!(f64_baseline, Plain<f64, 2>, 4, transposed, "sse2");
instantiate!(bf16_baseline, Plain<bf16, 4>, 4, interleaved, "sse2");

/// The kernels for `f32`.
pub fn f32(isa: Isa) -> KernelSet<f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => f32_avx512::SET,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => f32_avx2::SET,
        _ => f32_baseline::SET,
    }
}

/// The kernels for `f64`.
pub fn f64(isa: Isa) -> KernelSet<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => f64_avx512::SET,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => f64_avx2::SET,
        _ => f64_baseline::SET,
    }
}

/// The kernels for bf16.
pub fn bf16(isa: Isa) -> KernelSet<bf16> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => bf16_amx::SET,
        #[cfg(all(test, target_arch = "x86_64"))]
        Isa::AmxEmulated => bf16_amx_emulated::SET,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => bf16_avx512::SET,
        _ => bf16_baseline::SET,
    }
}
