//! Exponential and logarithm as polynomials, which the compiler vectorises; the system's functions take one
//! number per call.
//!
//! The `f32` versions are those of Cephes (Moshier 1989), accurate to 2 units in the last place. `f64`, which
//! only tests use, calls the system's functions.

use num_traits::Float;

/// Elementary functions for loops over many numbers.
pub trait Elementary: Float {
    /// `exp(x)`. In `f32` it is 0 below −87.3 and infinite above 88.3.
    fn quick_exp(self) -> Self;
    /// `log(x)` of a positive number; NaN otherwise. Subnormal numbers of `f32` count as 0, whose logarithm
    /// is NaN.
    fn quick_ln(self) -> Self;
    /// `log(1 + x)` of a number in [0, 1], accurate relative to itself.
    fn quick_ln_1p(self) -> Self;
}

impl Elementary for f32 {
    #[inline(always)]
    fn quick_exp(self) -> Self {
        const LOWEST: f32 = -87.3;
        const HIGHEST: f32 = 88.3;
        // 1.5·2²³: adding an integer to it is exact, and its low bits are then that integer.
        const SHIFT: f32 = 12_582_912.0;
        let x = if self > HIGHEST { HIGHEST } else { self };
        let shifted = x * std::f32::consts::LOG2_E + SHIFT;
        let n = shifted - SHIFT;
        let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
        let mut p = 1.987_569_1e-4;
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p * r + c;
        }
        let mantissa = p * r * r + r + 1.0;
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
        // NaN stays NaN: no comparison holds for it, and the mantissa is NaN.
        if self < LOWEST {
            0.0
        } else if self > HIGHEST {
            f32::INFINITY
        } else {
            mantissa * power
        }
    }

    #[inline(always)]
    fn quick_ln(self) -> Self {
        // x = m·2^e with m in [√½, √2).
        let bits = self.to_bits();
        let offset = bits.wrapping_sub(0x3f35_04f3);
        let e = ((offset as i32) >> 23) as f32;
        let m = f32::from_bits((offset & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
        let mut p = 7.037_683_6e-2;
        for c in [
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ] {
            p = p * m + c;
        }
        let square = m * m;
        let log = m * square * p + e * -2.121_944_4e-4 - 0.5 * square + m + e * 0.693_359_4;
        if (f32::MIN_POSITIVE..f32::INFINITY).contains(&self) {
            log
        } else if self == f32::INFINITY {
            self
        } else {
            f32::NAN
        }
    }

    #[inline(always)]
    fn quick_ln_1p(self) -> Self {
        let sum = 1.0 + self;
        // The quotient corrects the rounding of the sum (Goldberg 1991, theorem 4).
        if sum == 1.0 { self } else { sum.quick_ln() * (self / (sum - 1.0)) }
    }
}

impl Elementary for f64 {
    #[inline(always)]
    fn quick_exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn quick_ln(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn quick_ln_1p(self) -> Self {
        self.ln_1p()
    }
}

/// `1/(1 + exp(−x))`
#[inline(always)]
pub fn sigmoid<T: Elementary>(x: T) -> T {
    let e = (-x.abs()).quick_exp();
    (if x < T::zero() { e } else { T::one() }) / (T::one() + e)
}

/// `log(1 + exp(x))`
#[inline(always)]
pub fn softplus<T: Elementary>(x: T) -> T {
    // NaN stays NaN.
    (if x < T::zero() { T::zero() } else { x }) + (-x.abs()).quick_exp().quick_ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomials_are_accurate() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3 + 3e-5;
            let (have, want) = (f64::from(x.quick_exp()), f64::from(x).exp());
            assert!((have - want).abs() <= 3e-7 * want, "exp({x}): {have} for {want}");
            let x = want as f32;
            if x >= f32::MIN_POSITIVE {
                let (have, want) = (f64::from(x.quick_ln()), f64::from(x).ln());
                assert!((have - want).abs() <= 2e-7 * want.abs().max(0.4), "log({x}): {have} for {want}");
            }
            if x <= 1.0 {
                let (have, want) = (f64::from(x.quick_ln_1p()), f64::from(x).ln_1p());
                assert!((have - want).abs() <= 4e-7 * want, "log(1 + {x}): {have} for {want}");
            }
        }
    }

    #[test]
    fn numbers_out_of_range_have_limits() {
        assert_eq!([-1e30_f32, f32::NEG_INFINITY].map(Elementary::quick_exp), [0.0; 2]);
        assert_eq!([100.0, 1e30_f32, f32::INFINITY].map(Elementary::quick_exp), [f32::INFINITY; 3]);
        assert_eq!((f32::INFINITY.quick_ln(), 1_f32.quick_ln()), (f32::INFINITY, 0.0));
        assert_eq!([0.0, 1e-30_f32].map(Elementary::quick_ln_1p), [0.0, 1e-30]);
        assert_eq!([f32::NEG_INFINITY, f32::INFINITY].map(softplus), [0.0, f32::INFINITY]);
        assert!(softplus(f32::NAN).is_nan());
        for x in [0.0, -1.0, f32::NAN] {
            assert!(x.quick_ln().is_nan(), "log({x})");
        }
        assert!(f32::NAN.quick_exp().is_nan());
    }
}
