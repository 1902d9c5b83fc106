//! Instruction sets, and the vector operations that a matrix product is made of.

#![allow(unsafe_code)]

use half::bf16;

use super::element::Element;
use crate::real::Real;

/// Instruction sets that the product has a kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`] with AMX's tiles of bf16: for products of bf16.
    Amx,
    /// AMX by way of a handler of illegal instructions, and nothing else that a processor may lack.
    #[cfg(test)]
    AmxEmulated,
    /// [`Isa::Avx512`] with AVX-512 BF16: for products of bf16.
    Avx512Bf16,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the compiler may assume: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl Isa {
    /// Every instruction set of this processor that `f32` and `f64` are multiplied with, the best first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // Every processor with the first but the long forgotten Xeon Phi has the others too.
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                found.push(Self::Avx512);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Baseline);
        found
    }

    /// Calls `work` with this instruction set enabled, so that the compiler may use it for whatever is inlined there. The
    /// results have the same bits as without.
    ///
    /// # Safety
    /// The processor has it.
    #[inline(always)]
    pub unsafe fn enabled<R>(self, work: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        match self {
            // SAFETY: the caller's contract.
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => unsafe { avx512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(work) },
            _ => work(),
        }
    }

    /// The same as [`available`](Self::available) for bf16. [`Isa::Baseline`] is slower than `f32`, and there to compare with.
    pub fn available_for_bf16() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        if Self::available().contains(&Self::Avx512) && is_x86_feature_detected!("avx512bf16") {
            if tiles_allowed() {
                found.push(Self::Amx);
            }
            found.push(Self::Avx512Bf16);
        }
        found.push(Self::Baseline);
        found
    }
}

/// Whether the processor has AMX with bf16, and the operating system lets this process use it. Linux must be asked, once for all
/// threads, because the tiles' 8 KiB make every context switch larger.
#[cfg(target_arch = "x86_64")]
fn tiles_allowed() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        *ALLOWED.get_or_init(|| {
            const AMX_BF16: u32 = 1 << 22;
            const AMX_TILE: u32 = 1 << 24;
            /// `arch_prctl`'s request for a part of the processor's state, and the number of the part that is the tiles.
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const TILES: libc::c_long = 18;
            // SAFETY: whoever asks has found AVX-512, so that the processor has leaf 7. (Newer versions of Rust
            // call it safe.)
            #[allow(unused_unsafe)]
            let features = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx;
            let there = features & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE;
            // SAFETY: the call takes two numbers and touches no memory of ours.
            there && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) } == 0
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Sums of one vector register, and what is done with them.
///
/// # Safety
/// Every operation needs the processor to have the vector's instruction set, and as many numbers behind a pointer as it
/// says. Functions are inlined into the kernel, which enables the set.
pub trait Vector: Copy {
    /// What matrices hold.
    type Element: Element;
    /// A register of factors: [`Element::GROUP`] of them for each lane.
    type Factors: Copy;
    /// Sums in the vector.
    const LANES: usize;

    /// Zeros.
    unsafe fn zero() -> Self;
    /// Sums at any address.
    unsafe fn load(from: *const Sum<Self>) -> Self;
    /// Stores sums to any address.
    unsafe fn store(self, to: *mut Sum<Self>);
    /// `LANES · GROUP` factors at any address.
    unsafe fn factors(from: *const Self::Element) -> Self::Factors;
    /// The same group of factors for every lane.
    unsafe fn splat(from: *const Self::Element) -> Self::Factors;
    /// `self + other`
    unsafe fn plus(self, other: Self) -> Self;
    /// `self + a·b`, in each lane for all factors of a group.
    unsafe fn add_products(self, a: Self::Factors, b: Self::Factors) -> Self;
    /// `max(self, 0)`; NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// 0 wherever the `LANES` numbers at `mask` are not positive.
    unsafe fn where_positive(self, mask: *const Self::Element) -> Self;
    /// Stores sums as elements, to any address.
    unsafe fn narrow(self, to: *mut Self::Element);
}

/// A vector whose factors come in pairs.
///
/// # Safety
/// As for [`Vector`].
pub trait Pairing: Vector {
    /// Writes `2·LANES` elements of two rows side by side: pairs.
    unsafe fn interleave(first: *const Self::Element, second: *const Self::Element, to: *mut Self::Element);
}

/// What a vector sums in.
pub type Sum<V> = <<V as Vector>::Element as Element>::Sum;

/// A vector of scalars: in order, the type, its register, its scalar, its lanes; then how to load, store, splat, add, multiply
/// and add, take the maximum, and keep `x` where `mask` is positive.
macro_rules! vector {
    (
        $name:ident, $register:ident, $scalar:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $fma:ident, $max:ident,
        |$x:ident, $mask:ident| $positive:expr
    ) => {
        #[cfg(target_arch = "x86_64")]
        #[derive(Clone, Copy)]
        pub struct $name(std::arch::x86_64::$register);

        #[cfg(target_arch = "x86_64")]
        impl Vector for $name {
            type Element = $scalar;
            type Factors = Self;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the trait's contract is that of the instruction.
                Self(unsafe { std::arch::x86_64::$splat(0.0) })
            }
            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn factors(from: *const $scalar) -> Self {
                // SAFETY: as above.
                unsafe { Self::load(from) }
            }
            #[inline(always)]
            unsafe fn splat(from: *const $scalar) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$splat(*from) })
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$add(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn add_products(self, a: Self, b: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$fma(a.0, b.0, self.0) })
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: as above. Where one operand is NaN, the instruction returns the second.
                Self(unsafe { std::arch::x86_64::$max(std::arch::x86_64::$splat(0.0), self.0) })
            }
            #[inline(always)]
            unsafe fn where_positive(self, mask: *const $scalar) -> Self {
                use std::arch::x86_64::*;
                // SAFETY: as above.
                unsafe {
                    let ($x, $mask) = (self.0, $load(mask));
                    Self($positive)
                }
            }
            #[inline(always)]
            unsafe fn narrow(self, to: *mut $scalar) {
                // SAFETY: as above.
                unsafe { self.store(to) }
            }
        }
    };
}

vector!(
    F32x16,
    __m512,
    f32,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps,
    |x, mask| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps()), x)
);
vector!(
    F64x8,
    __m512d,
    f64,
    8,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_add_pd,
    _mm512_fmadd_pd,
    _mm512_max_pd,
    |x, mask| _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_pd()), x)
);
vector!(
    F32x8,
    __m256,
    f32,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps,
    |x, mask| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask, _mm256_setzero_ps()), x)
);
vector!(
    F64x4,
    __m256d,
    f64,
    4,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_fmadd_pd,
    _mm256_max_pd,
    |x, mask| _mm256_and_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(mask, _mm256_setzero_pd()), x)
);

/// Sixteen sums of products of bf16, in one register.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Bf16x16(std::arch::x86_64::__m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Bf16x16 {
    type Element = bf16;
    type Factors = std::arch::x86_64::__m512bh;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the trait's contract is that of the instruction.
        Self(unsafe { std::arch::x86_64::_mm512_setzero_ps() })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { std::arch::x86_64::_mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn factors(from: *const bf16) -> Self::Factors {
        use std::arch::x86_64::{__m512bh, __m512i, _mm512_loadu_si512};
        // SAFETY: as above; both types are 512 bits of anything.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const bf16) -> Self::Factors {
        use std::arch::x86_64::{__m512bh, __m512i, _mm512_set1_epi32};
        // SAFETY: as above; two elements are 32 bits.
        unsafe {
            let pair = from.cast::<i32>().read_unaligned();
            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
        }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn add_products(self, a: Self::Factors, b: Self::Factors) -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_dpbf16_ps(self.0, a, b) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        use std::arch::x86_64::{_mm512_max_ps, _mm512_setzero_ps};
        // SAFETY: as above. Where one operand is NaN, the instruction returns the second.
        Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, mask: *const bf16) -> Self {
        use std::arch::x86_64::*;
        // SAFETY: as above. A bf16 is the upper half of an `f32`.
        unsafe {
            let mask = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(mask.cast())));
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_castsi512_ps(mask), _mm512_setzero_ps());
            Self(_mm512_maskz_mov_ps(positive, self.0))
        }
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut bf16) {
        use std::arch::x86_64::{__m256bh, __m256i, _mm256_storeu_si256, _mm512_cvtneps_pbh};
        // SAFETY: as above.
        unsafe {
            let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
            _mm256_storeu_si256(to.cast(), narrow);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairing for Bf16x16 {
    #[inline(always)]
    unsafe fn interleave(first: *const bf16, second: *const bf16, to: *mut bf16) {
        use std::arch::x86_64::{_mm512_loadu_si512, _mm512_permutex2var_epi16, _mm512_storeu_si512};
        /// Which elements of both rows one after the other make each half; those of the second begin at 32.
        const HALVES: [[u16; 32]; 2] = {
            let mut halves = [[0; 32]; 2];
            let mut i = 0;
            while i < 64 {
                halves[i / 32][i % 32] = (i / 2 + i % 2 * 32) as u16;
                i += 1;
            }
            halves
        };
        // SAFETY: the trait's contract is that of the instructions.
        unsafe {
            let (first, second) = (_mm512_loadu_si512(first.cast()), _mm512_loadu_si512(second.cast()));
            for (h, half) in HALVES.iter().enumerate() {
                let which = _mm512_loadu_si512(half.as_ptr().cast());
                _mm512_storeu_si512(to.add(32 * h).cast(), _mm512_permutex2var_epi16(first, which, second));
            }
        }
    }
}

/// A vector of any processor: the compiler turns it into registers that there are.
#[derive(Clone, Copy)]
pub struct Plain<E: Element, const LANES: usize>([E::Sum; LANES]);

impl<E: Element, const LANES: usize> Vector for Plain<E, LANES> {
    type Element = E;
    /// One factor of each group after the other.
    type Factors = [[E::Sum; LANES]; 2];
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([E::Sum::of(0.0); LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const E::Sum) -> Self {
        // SAFETY: the caller has `LANES` numbers there; an array is aligned as its element is.
        Self(unsafe { *from.cast() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut E::Sum) {
        // SAFETY: as above.
        unsafe { *to.cast() = self.0 }
    }
    #[inline(always)]
    unsafe fn factors(from: *const E) -> Self::Factors {
        let factor = |i: usize, g: usize| {
            // SAFETY: the caller has `LANES · GROUP` elements there.
            unsafe { *from.add(i * E::GROUP + g.min(E::GROUP - 1)) }.to_sum()
        };
        std::array::from_fn(|g| std::array::from_fn(|i| factor(i, g)))
    }
    #[inline(always)]
    unsafe fn splat(from: *const E) -> Self::Factors {
        // SAFETY: the caller has `GROUP` elements there.
        std::array::from_fn(|g| [unsafe { *from.add(g.min(E::GROUP - 1)) }.to_sum(); LANES])
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn add_products(self, a: Self::Factors, b: Self::Factors) -> Self {
        use num_traits::Float;
        // A fused multiply-add is an instruction of 64-bit Arm, and a slow call on plain x86-64.
        let add = |sum: E::Sum, a: E::Sum, b: E::Sum| {
            if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { a * b + sum }
        };
        let mut sums = self.0;
        for g in 0..E::GROUP {
            sums = std::array::from_fn(|i| add(sums[i], a[g][i], b[g][i]));
        }
        Self(sums)
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        let zero = E::Sum::of(0.0);
        Self(self.0.map(|x| if x < zero { zero } else { x }))
    }
    #[inline(always)]
    unsafe fn where_positive(self, mask: *const E) -> Self {
        let zero = E::Sum::of(0.0);
        Self(std::array::from_fn(|i| {
            // SAFETY: the caller has `LANES` elements there.
            if unsafe { *mask.add(i) }.to_sum() > zero { self.0[i] } else { zero }
        }))
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut E) {
        for (i, &x) in self.0.iter().enumerate() {
            // SAFETY: the caller has room for `LANES` elements there.
            unsafe { *to.add(i) = E::of_sum(x) }
        }
    }
}

impl<E: Element, const LANES: usize> Pairing for Plain<E, LANES> {
    #[inline(always)]
    unsafe fn interleave(first: *const E, second: *const E, to: *mut E) {
        for i in 0..2 * LANES {
            // SAFETY: the caller has as many elements there.
            unsafe {
                *to.add(2 * i) = *first.add(i);
                *to.add(2 * i + 1) = *second.add(i);
            }
        }
    }
}
