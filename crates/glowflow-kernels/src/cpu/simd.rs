//! Instruction sets, and the four vector operations that a matrix product is made of.

#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Instruction sets that the product has a kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// x86-64 with AVX-512 F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the compiler may assume: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::available()[0])
    }

    /// Every instruction set that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avx512f") {
                found.push(Self::Avx512);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Baseline);
        found
    }
}

/// A vector register of one instruction set.
///
/// # Safety
/// Every operation needs the processor to have that instruction set; `load` and `store` need as many elements
/// behind the pointer as the vector has lanes. Functions are inlined into the kernel, which enables the set.
pub trait Vector: Copy {
    /// What a lane holds.
    type Scalar: Copy;
    /// Lanes of the vector.
    const LANES: usize;

    /// Loads from any address.
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// The same number in every lane.
    unsafe fn splat(x: Self::Scalar) -> Self;
    /// `self·by + to`.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// Stores to any address.
    unsafe fn store(self, to: *mut Self::Scalar);
}

macro_rules! vector {
    ($name:ident, $register:ident, $scalar:ty, $lanes:literal, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[derive(Clone, Copy)]
        pub struct $name(std::arch::x86_64::$register);

        #[cfg(target_arch = "x86_64")]
        impl Vector for $name {
            type Scalar = $scalar;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: the trait's contract is that of the instruction.
                Self(unsafe { std::arch::x86_64::$load(from) })
            }
            #[inline(always)]
            unsafe fn splat(x: $scalar) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$splat(x) })
            }
            #[inline(always)]
            unsafe fn mul_add(self, by: Self, to: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { std::arch::x86_64::$fma(self.0, by.0, to.0) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$store(to, self.0) }
            }
        }
    };
}

vector!(F32x16, __m512, f32, 16, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
vector!(F64x8, __m512d, f64, 8, _mm512_loadu_pd, _mm512_set1_pd, _mm512_fmadd_pd, _mm512_storeu_pd);
vector!(F32x8, __m256, f32, 8, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);
vector!(F64x4, __m256d, f64, 4, _mm256_loadu_pd, _mm256_set1_pd, _mm256_fmadd_pd, _mm256_storeu_pd);

/// A vector of any processor: the compiler turns it into 128-bit registers.
#[derive(Clone, Copy)]
pub struct Plain<T, const LANES: usize>([T; LANES]);

impl<T: num_traits::Float, const LANES: usize> Vector for Plain<T, LANES> {
    type Scalar = T;
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller has `LANES` elements there; an array is aligned as its element is.
        Self(unsafe { *from.cast() })
    }
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // A fused multiply-add is an instruction of 64-bit Arm, and a slow call on plain x86-64.
        Self(std::array::from_fn(|i| {
            if cfg!(target_arch = "aarch64") {
                self.0[i].mul_add(by.0[i], to.0[i])
            } else {
                self.0[i] * by.0[i] + to.0[i]
            }
        }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as in `load`.
        unsafe { *to.cast() = self.0 }
    }
}
