//! The baseline's curve of bits/dim over cost, and compute multipliers derived from it.
//!
//! The cost of a run is its time or its counted floating-point operations. Let `b(T)` be the baseline's
//! bits/dim when trained for T, each time with its own schedule. A configuration that reaches `bits` at cost
//! `t` has the multiplier `T(bits) / t`, where `b(T(bits)) = bits`: the factor of additional training that
//! the baseline needs. `b` is interpolated linearly in `log T`, and never extrapolated.

use std::fmt;

use serde::Serialize;

/// The baseline's bits/dim at several costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Cost and bits/dim, in ascending order of cost.
    points: Vec<(f64, f64)>,
}

/// The cost at which the baseline reaches a configuration's bits/dim, relative to the configuration's own
/// cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Multiplier {
    /// This factor.
    Equal(f64),
    /// A larger factor: no run of the baseline is as good.
    Above(f64),
    /// A smaller factor: all runs of the baseline are better.
    Below(f64),
}

impl Curve {
    /// A curve through points of positive cost and bits/dim. Non-finite points are ignored.
    pub fn new(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let known = |&(cost, bits): &(f64, f64)| cost > 0.0 && cost.is_finite() && bits.is_finite();
        let mut points: Vec<_> = points.into_iter().filter(known).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { points }
    }

    /// The multiplier of a configuration with these bits/dim at this cost; `None` without points or for
    /// non-finite values. If the curve rises, the smallest cost applies.
    pub fn multiplier(&self, bits: f64, cost: f64) -> Option<Multiplier> {
        if !(bits.is_finite() && cost > 0.0 && cost.is_finite()) {
            return None;
        }
        let (&(least, worst), &(most, _)) = (self.points.first()?, self.points.last()?);
        if bits > worst {
            return Some(Multiplier::Below(least / cost));
        }
        let reached = self.points.iter().position(|point| point.1 <= bits);
        Some(match reached {
            None => Multiplier::Above(most / cost),
            Some(0) => Multiplier::Equal(least / cost),
            Some(at) => {
                let ((before, above), (after, below)) = (self.points[at - 1], self.points[at]);
                let part = (above - bits) / (above - below);
                Multiplier::Equal((before.ln() + part * (after.ln() - before.ln())).exp() / cost)
            }
        })
    }
}

impl fmt::Display for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Equal(times) => write!(f, "{times:.2}"),
            Self::Above(times) => write!(f, "> {times:.2}"),
            Self::Below(times) => write!(f, "< {times:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4, 3.8, 3.7 and 3.65 bits/dim at 1, 2, 4 and 8 minutes, shuffled.
    fn curve() -> Curve {
        Curve::new([(4.0, 3.7), (1.0, 4.0), (8.0, 3.65), (2.0, 3.8)])
    }

    #[track_caller]
    fn assert_equal(multiplier: Option<Multiplier>, expected: f64) {
        match multiplier {
            Some(Multiplier::Equal(times)) => assert!((times - expected).abs() < 1e-12, "{times} {expected}"),
            other => panic!("{other:?} is not {expected}"),
        }
    }

    #[test]
    fn multipliers_are_read_off_the_curve() {
        for (bits, minutes) in [(4.0, 1.0), (3.8, 2.0), (3.7, 4.0), (3.65, 8.0)] {
            assert_equal(curve().multiplier(bits, 1.0), minutes);
            assert_equal(curve().multiplier(bits, 2.0), minutes / 2.0);
        }
        // Halfway in bits is halfway in log time.
        assert_equal(curve().multiplier(3.9, 1.0), 2f64.sqrt());
        assert_equal(curve().multiplier(3.75, 1.0), 8f64.sqrt());
    }

    #[test]
    fn nothing_is_extrapolated() {
        assert_eq!(curve().multiplier(3.64, 1.0), Some(Multiplier::Above(8.0)));
        assert_eq!(curve().multiplier(3.64, 2.0), Some(Multiplier::Above(4.0)));
        assert_eq!(curve().multiplier(4.01, 1.0), Some(Multiplier::Below(1.0)));
        assert_eq!(curve().multiplier(f64::NAN, 1.0), None);
        assert_eq!(curve().multiplier(3.8, 0.0), None);
        assert_eq!(Curve::new([]).multiplier(3.8, 1.0), None);
        assert_eq!(Curve::new([(1.0, f64::NAN)]).multiplier(3.8, 1.0), None);
        let one = Curve::new([(1.0, 4.0)]);
        assert_eq!(one.multiplier(3.9, 1.0), Some(Multiplier::Above(1.0)));
        assert_eq!(one.multiplier(4.1, 1.0), Some(Multiplier::Below(1.0)));
        assert_equal(one.multiplier(4.0, 1.0), 1.0);
    }

    /// Seed noise may make a longer run worse.
    #[test]
    fn a_curve_that_rises_counts_from_its_first_crossing() {
        let curve = Curve::new([(1.0, 4.0), (2.0, 3.8), (4.0, 3.85), (8.0, 3.7)]);
        assert_equal(curve.multiplier(3.8, 1.0), 2.0);
        assert_equal(curve.multiplier(3.85, 1.0), 2f64.powf(0.75));
        let flat = Curve::new([(1.0, 4.0), (2.0, 4.0), (4.0, 3.9)]);
        assert_equal(flat.multiplier(4.0, 1.0), 1.0);
    }

    #[test]
    fn multipliers_are_spelled_with_their_relation() {
        assert_eq!(Multiplier::Equal(1.234).to_string(), "1.23");
        assert_eq!(Multiplier::Above(8.0).to_string(), "> 8.00");
        assert_eq!(Multiplier::Below(0.5).to_string(), "< 0.50");
    }
}
