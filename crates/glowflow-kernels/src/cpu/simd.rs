//! The vector operations used by matrix products.

#![allow(unsafe_code)]

use half::bf16;

use super::element::Element;
use crate::real::Real;

/// Rows and columns of a [`Square`].
pub const SIDE: usize = 16;

/// The unit of a transposition: rows of a cache line of `f32`.
pub type Square<T> = [[T; SIDE]; SIDE];

/// A vector register of sums, and its operations.
///
/// # Safety
/// The processor must have the vector's instruction set, and a pointer must be valid for the number of
/// elements that the operation's documentation gives. Functions are inlined into the kernel, which enables
/// the set.
pub trait Vector: Copy {
    /// Element type of matrices.
    type Element: Element;
    /// A register of factors: [`Element::GROUP`] of them for each lane.
    type Factors: Copy;
    /// Number of sums in the vector.
    const LANES: usize;

    /// Zeros.
    unsafe fn zero() -> Self;
    /// Loads sums from an unaligned address.
    unsafe fn load(from: *const Sum<Self>) -> Self;
    /// Stores sums to an unaligned address.
    unsafe fn store(self, to: *mut Sum<Self>);
    /// Loads `LANES · GROUP` factors from an unaligned address.
    unsafe fn factors(from: *const Self::Element) -> Self::Factors;
    /// Broadcasts a group of factors to every lane.
    unsafe fn splat(from: *const Self::Element) -> Self::Factors;
    /// `self + other`
    unsafe fn plus(self, other: Self) -> Self;
    /// `self + a·b`, summed in each lane over all factors of a group.
    unsafe fn add_products(self, a: Self::Factors, b: Self::Factors) -> Self;
    /// `max(self, 0)`; NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// Sets lanes to 0 whose number at `mask` is not positive.
    unsafe fn where_positive(self, mask: *const Self::Element) -> Self;
    /// Stores sums as elements, to an unaligned address.
    unsafe fn narrow(self, to: *mut Self::Element);
    /// Transposes a square.
    #[inline(always)]
    unsafe fn transpose(square: &mut Square<Sum<Self>>) {
        let rows = *square;
        for (i, row) in square.iter_mut().enumerate() {
            *row = rows.map(|from| from[i]);
        }
    }
}

/// A vector whose factors come in pairs.
///
/// # Safety
/// As for [`Vector`].
pub trait Pairing: Vector {
    /// Interleaves `2·LANES` elements of two rows into adjacent pairs.
    unsafe fn interleave(first: *const Self::Element, second: *const Self::Element, to: *mut Self::Element);
}

/// The type in which a vector accumulates.
pub type Sum<V> = <<V as Vector>::Element as Element>::Sum;

/// [`Vector::transpose`] with AVX-512, in four rounds: rows that are 8, 4, 2 and 1 apart exchange half of
/// their numbers.
///
/// # Safety
/// The processor has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_f32(square: &mut Square<f32>) {
    use std::arch::x86_64::{
        __m512, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutex2var_ps, _mm512_storeu_ps,
    };
    /// Indices of the numbers of two rows, `H` apart, that form the upper and the lower one; those of the
    /// lower row begin at 16.
    const fn places<const H: usize>() -> [[u32; SIDE]; 2] {
        let mut places = [[0; SIDE]; 2];
        let mut j = 0;
        while j < SIDE {
            let upper_row = j & H == 0;
            places[0][j] = if upper_row { j } else { SIDE + j - H } as u32;
            places[1][j] = if upper_row { j + H } else { SIDE + j } as u32;
            j += 1;
        }
        places
    }
    #[inline(always)]
    unsafe fn round<const H: usize>(rows: &mut [__m512; SIDE]) {
        for pair in 0..SIDE / 2 {
            let i = pair / H * 2 * H + pair % H;
            let (upper, lower) = (rows[i], rows[i + H]);
            // SAFETY: the caller's contract.
            unsafe {
                let [first, second] =
                    const { places::<H>() }.map(|places| _mm512_loadu_si512(places.as_ptr().cast()));
                rows[i] = _mm512_permutex2var_ps(upper, first, lower);
                rows[i + H] = _mm512_permutex2var_ps(upper, second, lower);
            }
        }
    }
    // SAFETY: the caller's contract; a row has 16 numbers.
    unsafe {
        let mut rows: [__m512; SIDE] = std::array::from_fn(|i| _mm512_loadu_ps(square[i].as_ptr()));
        round::<8>(&mut rows);
        round::<4>(&mut rows);
        round::<2>(&mut rows);
        round::<1>(&mut rows);
        for (row, to) in rows.into_iter().zip(square) {
            _mm512_storeu_ps(to.as_mut_ptr(), row);
        }
    }
}

/// A vector of scalars. Arguments, in order: type, register, scalar, lanes; the intrinsics to load, store,
/// splat, add, multiply-add, take the maximum, and keep `x` where `mask` is positive; and optionally a faster
/// transposition.
macro_rules! vector {
    (
        $name:ident, $register:ident, $scalar:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident,
        $add:ident, $fma:ident, $max:ident, |$x:ident, $mask:ident| $positive:expr $(, $transpose:item)?
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
            $($transpose)?
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
    |x, mask| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps()), x),
    #[inline(always)]
    unsafe fn transpose(square: &mut Square<f32>) {
        // SAFETY: as above.
        unsafe { transpose_f32(square) }
    }
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
    #[inline(always)]
    unsafe fn transpose(square: &mut Square<f32>) {
        // SAFETY: as above.
        unsafe { transpose_f32(square) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairing for Bf16x16 {
    #[inline(always)]
    unsafe fn interleave(first: *const bf16, second: *const bf16, to: *mut bf16) {
        use std::arch::x86_64::{_mm512_loadu_si512, _mm512_permutex2var_epi16, _mm512_storeu_si512};
        /// Indices into both rows, concatenated, that form each half; those of the second row begin at 32.
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

/// A portable vector, which the compiler maps to the available registers.
#[derive(Clone, Copy)]
pub struct Plain<E: Element, const LANES: usize>([E::Sum; LANES]);

impl<E: Element, const LANES: usize> Vector for Plain<E, LANES> {
    type Element = E;
    /// The factors of a group, one array each.
    type Factors = [[E::Sum; LANES]; 2];
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([E::Sum::of(0.0); LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const E::Sum) -> Self {
        // SAFETY: the caller provides `LANES` numbers; an array is aligned like its element.
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
            // SAFETY: the caller provides `LANES · GROUP` elements.
            unsafe { *from.add(i * E::GROUP + g.min(E::GROUP - 1)) }.to_sum()
        };
        std::array::from_fn(|g| std::array::from_fn(|i| factor(i, g)))
    }
    #[inline(always)]
    unsafe fn splat(from: *const E) -> Self::Factors {
        // SAFETY: the caller provides `GROUP` elements.
        std::array::from_fn(|g| [unsafe { *from.add(g.min(E::GROUP - 1)) }.to_sum(); LANES])
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn add_products(self, a: Self::Factors, b: Self::Factors) -> Self {
        use num_traits::Float;
        // A fused multiply-add is an instruction on 64-bit Arm, but a slow call on plain x86-64.
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
            // SAFETY: the caller provides `LANES` elements.
            if unsafe { *mask.add(i) }.to_sum() > zero { self.0[i] } else { zero }
        }))
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut E) {
        for (i, &x) in self.0.iter().enumerate() {
            // SAFETY: the caller provides room for `LANES` elements.
            unsafe { *to.add(i) = E::of_sum(x) }
        }
    }
}

impl<E: Element, const LANES: usize> Pairing for Plain<E, LANES> {
    #[inline(always)]
    unsafe fn interleave(first: *const E, second: *const E, to: *mut E) {
        for i in 0..2 * LANES {
            // SAFETY: the caller provides these elements.
            unsafe {
                *to.add(2 * i) = *first.add(i);
                *to.add(2 * i + 1) = *second.add(i);
            }
        }
    }
}
