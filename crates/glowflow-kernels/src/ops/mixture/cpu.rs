//! [`LANES`] numbers at a time, in loops that the compiler vectorises.
//!
//! F, G and f are sums of logistic functions of one exponential each. Far from all components they underflow;
//! only such numbers are computed with logarithms, one by one.

use rayon::prelude::*;

use super::{BOUND, FLOOR, ITERATIONS, Mixture, MixtureShape};
use crate::cpu::isa::Task;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::ops::NetworkOutputs;
use crate::ops::network_outputs::head;

/// Numbers processed together.
const LANES: usize = 16;

/// One number per lane.
type Lanes<T> = [T; LANES];

/// Rows per task if images need not be separated.
const ROWS: usize = 64;

/// `f` of each lane.
#[inline(always)]
fn each<T: Scalar>(f: impl Fn(usize) -> T) -> Lanes<T> {
    let mut lanes = [T::zero(); LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = f(i);
    }
    lanes
}

/// `tanh(x)`, with rounding relative to 1.
#[inline(always)]
fn tanh<T: Scalar>(x: T) -> T {
    let e = (-(x.abs() + x.abs())).quick_exp();
    let tanh = (T::one() - e) / (T::one() + e);
    if x < T::zero() { -tanh } else { tanh }
}

/// A component.
#[derive(Clone, Copy)]
struct Component<T> {
    log_pi: Lanes<T>,
    pi: Lanes<T>,
    mu: Lanes<T>,
    zeta: Lanes<T>,
    /// `exp(−ζ)`
    inverse: Lanes<T>,
}

/// The parameters of several numbers.
struct Parameters<T> {
    shift: Lanes<T>,
    /// a
    log_scale: Lanes<T>,
    components: Vec<Component<T>>,
}

/// t and S.
struct Value<T> {
    t: Lanes<T>,
    slope: Lanes<T>,
    /// `max |z_m|`
    largest: Lanes<T>,
}

/// Logarithms of F, G and f, for one lane.
struct Logs<T> {
    upper: T,
    lower: T,
    density: T,
}

/// σ(z) and σ(−z).
#[inline(always)]
fn both_sigmoids<T: Scalar>(z: T) -> (T, T) {
    let e = (-z.abs()).quick_exp();
    let (large, small) = (T::one() / (T::one() + e), e / (T::one() + e));
    if z < T::zero() { (small, large) } else { (large, small) }
}

/// `log σ(z)`
fn log_sigmoid<T: Scalar>(z: T) -> T {
    z.min(T::zero()) - (-z.abs()).exp().ln_1p()
}

/// `log Σ exp(x)`
fn log_sum_exp<T: Scalar>(x: impl Iterator<Item = T> + Clone) -> T {
    let most = x.clone().fold(T::neg_infinity(), T::max);
    if most.is_finite() { most + x.map(|x| (x - most).exp()).sum::<T>().ln() } else { most }
}

impl<T: Scalar> Parameters<T> {
    fn new(components: usize) -> Self {
        let zero = [T::zero(); LANES];
        let component = Component { log_pi: zero, pi: zero, mu: zero, zeta: zero, inverse: zero };
        Self { shift: zero, log_scale: zero, components: vec![component; components] }
    }

    /// Reads the parameters of the numbers from `first` on, counted over the rows of `o` and `head`.
    #[inline(always)]
    fn read(&mut self, shape: MixtureShape, o: &[T], head: &[T], first: usize, count: usize) {
        let half = shape.half();
        for i in 0..count {
            let (row, c) = ((first + i) / half, (first + i) % half);
            let (o, head) = (&o[row * shape.channels..], &head[row * shape.head()..]);
            self.shift[i] = o[c];
            self.log_scale[i] = o[half + c];
            for (m, component) in self.components.iter_mut().enumerate() {
                component.log_pi[i] = head[shape.place(0, m) + c];
                component.mu[i] = head[shape.place(1, m) + c];
                component.zeta[i] = head[shape.place(2, m) + c];
            }
        }
        let (two, bound) = (T::of(2.0), T::of(BOUND));
        self.log_scale = each(|i| two * tanh(self.log_scale[i] / two));
        let mut most = [T::neg_infinity(); LANES];
        for component in &self.components {
            most = each(|i| if component.log_pi[i] > most[i] { component.log_pi[i] } else { most[i] });
        }
        let mut sum = [T::zero(); LANES];
        for component in &self.components {
            let exp = each(|i| (component.log_pi[i] - most[i]).quick_exp());
            sum = each(|i| sum[i] + exp[i]);
        }
        let log = each(|i| most[i] + sum[i].quick_ln());
        for (m, component) in self.components.iter_mut().enumerate() {
            let offset = T::of(shape.offset(m));
            component.log_pi = each(|i| component.log_pi[i] - log[i]);
            component.pi = each(|i| component.log_pi[i].quick_exp());
            component.mu = each(|i| component.mu[i] + offset);
            component.zeta = each(|i| bound * tanh(component.zeta[i] / bound));
            component.inverse = each(|i| (-component.zeta[i]).quick_exp());
        }
    }

    /// F, G and f.
    #[inline(always)]
    fn sums(&self, x: &Lanes<T>) -> [Lanes<T>; 4] {
        let [mut upper, mut lower, mut density, mut largest] = [[T::zero(); LANES]; 4];
        for component in &self.components {
            for i in 0..LANES {
                let z = (x[i] - component.mu[i]) * component.inverse[i];
                let (above, below) = both_sigmoids(z);
                upper[i] += component.pi[i] * above;
                lower[i] += component.pi[i] * below;
                density[i] += component.pi[i] * component.inverse[i] * above * below;
                largest[i] = if z.abs() > largest[i] { z.abs() } else { largest[i] };
            }
        }
        [upper, lower, density, largest]
    }

    /// Returns whether sums are exact except for rounding in every lane; false for NaN.
    #[inline(always)]
    fn exact(upper: T, lower: T) -> bool {
        let least = T::min_positive_value() * T::of(1e8);
        upper > least && lower > least
    }

    /// Logarithms of F, G and f in a lane.
    fn logs(&self, lane: usize, x: T) -> Logs<T> {
        let terms = |f: fn(T, T) -> T| {
            log_sum_exp(self.components.iter().map(move |component| {
                let z = (x - component.mu[lane]) * component.inverse[lane];
                component.log_pi[lane] + f(z, component.zeta[lane])
            }))
        };
        Logs {
            upper: terms(|z, _| log_sigmoid(z)),
            lower: terms(|z, _| log_sigmoid(-z)),
            density: terms(|z, zeta| log_sigmoid(z) + log_sigmoid(-z) - zeta),
        }
    }

    #[inline(always)]
    fn value(&self, x: &Lanes<T>) -> Value<T> {
        let [upper, lower, density, largest] = self.sums(x);
        let (floor, rest) = (T::of(FLOOR), T::of(1.0 - FLOOR));
        let mut value = Value {
            t: each(|i| rest * (upper[i] / lower[i]).quick_ln() + floor * x[i]),
            slope: each(|i| rest * (density[i] / (upper[i] * lower[i])) + floor),
            largest,
        };
        for i in 0..LANES {
            if !Self::exact(upper[i], lower[i]) {
                let Logs { upper, lower, density } = self.logs(i, x[i]);
                value.t[i] = rest * (upper - lower) + floor * x[i];
                value.slope[i] = rest * (density - upper - lower).exp() + floor;
            }
        }
        value
    }

    /// The x with this t.
    #[inline(always)]
    fn solve(&self, t: &Lanes<T>) -> Lanes<T> {
        let (floor, rest, two) = (T::of(FLOOR), T::of(1.0 - FLOOR), T::of(2.0));
        let (mut low, mut high, mut x) =
            ([T::infinity(); LANES], [T::neg_infinity(); LANES], [T::zero(); LANES]);
        for component in &self.components {
            for i in 0..LANES {
                let inverse = rest * component.inverse[i];
                let root = (t[i] + inverse * component.mu[i]) / (inverse + floor);
                low[i] = if root < low[i] { root } else { low[i] };
                high[i] = if root > high[i] { root } else { high[i] };
                x[i] += component.pi[i] * root;
            }
        }
        x = each(|i| if x[i] < low[i] { low[i] } else { x[i] });
        x = each(|i| if x[i] > high[i] { high[i] } else { x[i] });
        let (narrow, small) = (T::of(4.0) * T::epsilon(), T::of(8.0) * T::epsilon());
        let (mut last, mut active) = ([T::infinity(); LANES], [true; LANES]);
        for _ in 0..ITERATIONS {
            let value = self.value(&x);
            for i in 0..LANES {
                let residual = value.t[i] - t[i];
                low[i] = if residual <= T::zero() && x[i] > low[i] { x[i] } else { low[i] };
                high[i] = if residual >= T::zero() && x[i] < high[i] { x[i] } else { high[i] };
                let step = residual / value.slope[i];
                let (newton, tolerance) = (x[i] - step, narrow * (T::one() + x[i].abs()));
                // Near the root, rounding may put an end of the bracket on the wrong side. A residual of NaN
                // satisfies no comparison, so that `next` is NaN.
                let near = step.abs() <= tolerance;
                let outside = (newton < low[i] - tolerance) | (newton > high[i] + tolerance);
                let slow = (two * residual).abs() > (last[i] * value.slope[i]).abs();
                let next = if !near & (outside | slow) { (low[i] + high[i]) / two } else { newton };
                let solved = residual.abs() <= small * (T::one() + t[i].abs() + value.largest[i]);
                last[i] = next - x[i];
                x[i] = if active[i] { next } else { x[i] };
                active[i] &= !(near | solved);
            }
            if !active.contains(&true) {
                break;
            }
        }
        x
    }
}

/// A range of rows of `x` and of the corresponding arrays.
struct Rows<'a, T> {
    shape: MixtureShape,
    o: &'a [T],
    head: &'a [T],
    x: &'a mut [T],
}

impl<T: Scalar> Rows<'_, T> {
    /// Position of a transformed number, counted over the rows.
    #[inline(always)]
    fn place(&self, number: usize) -> usize {
        let half = self.shape.half();
        number / half * self.shape.channels + half + number % half
    }

    /// Number of transformed numbers.
    #[inline(always)]
    fn numbers(&self) -> usize {
        self.x.len() / 2
    }

    #[inline(always)]
    fn read(&self, from: &[T], first: usize, count: usize) -> Lanes<T> {
        each(|i| if i < count { from[self.place(first + i)] } else { T::zero() })
    }
}

struct Forward<'a, T>(Rows<'a, T>);

impl<T: Scalar> Task for Forward<'_, T> {
    /// The log-determinant.
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self(rows) = self;
        let mut parameters = Parameters::new(rows.shape.components);
        let mut log_det = 0.0;
        for first in (0..rows.numbers()).step_by(LANES) {
            let count = LANES.min(rows.numbers() - first);
            parameters.read(rows.shape, rows.o, rows.head, first, count);
            let value = parameters.value(&rows.read(rows.x, first, count));
            let scale = each(|i| parameters.log_scale[i].quick_exp());
            let y = each(|i| value.t[i] * scale[i] + parameters.shift[i]);
            let log = each(|i| value.slope[i].quick_ln() + parameters.log_scale[i]);
            for i in 0..count {
                let place = rows.place(first + i);
                rows.x[place] = y[i];
                log_det += log[i].wide();
            }
        }
        log_det
    }
}

struct Inverse<'a, T>(Rows<'a, T>);

impl<T: Scalar> Task for Inverse<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(rows) = self;
        let mut parameters = Parameters::new(rows.shape.components);
        for first in (0..rows.numbers()).step_by(LANES) {
            let count = LANES.min(rows.numbers() - first);
            parameters.read(rows.shape, rows.o, rows.head, first, count);
            let y = rows.read(rows.x, first, count);
            let scale = each(|i| (-parameters.log_scale[i]).quick_exp());
            let x = parameters.solve(&each(|i| (y[i] - parameters.shift[i]) * scale[i]));
            for (i, &x) in x.iter().enumerate().take(count) {
                let place = rows.place(first + i);
                rows.x[place] = x;
            }
        }
    }
}

struct Backward<'a, T> {
    rows: Rows<'a, T>,
    dx: &'a mut [T],
    d_o: &'a mut [T],
    d_head: &'a mut [T],
    dlogp: T,
}

/// p, q and r of a component, and its z and σ(z).
#[derive(Clone, Copy)]
struct Shares<T> {
    p: T,
    q: T,
    r: T,
    z: T,
    above: T,
    below: T,
}

impl<T: Scalar> Parameters<T> {
    /// The shares in one lane, computed with logarithms.
    fn shares(&self, lane: usize, x: T, logs: &Logs<T>, component: &Component<T>) -> Shares<T> {
        let z = (x - component.mu[lane]) * component.inverse[lane];
        let (above, below) = (log_sigmoid(z), log_sigmoid(-z));
        let log_pi = component.log_pi[lane];
        Shares {
            p: (log_pi + above - logs.upper).exp(),
            q: (log_pi + below - logs.lower).exp(),
            r: (log_pi - component.zeta[lane] + above + below - logs.density).exp(),
            z,
            above: above.exp(),
            below: below.exp(),
        }
    }
}

impl<T: Scalar> Task for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, dx, d_o, d_head, dlogp } = self;
        let Rows { shape, .. } = rows;
        let (half, channels, of_head) = (shape.half(), shape.channels, shape.head());
        let (one, two, bound) = (T::one(), T::of(2.0), T::of(BOUND));
        let (floor, rest) = (T::of(FLOOR), T::of(1.0 - FLOOR));
        let mut parameters = Parameters::<T>::new(shape.components);
        // T, dμ and dζ of each component.
        let mut gradients = vec![[[T::zero(); LANES]; 3]; shape.components];
        for first in (0..rows.numbers()).step_by(LANES) {
            let count = LANES.min(rows.numbers() - first);
            parameters.read(shape, rows.o, rows.head, first, count);
            let (y, dy) = (rows.read(rows.x, first, count), rows.read(dx, first, count));
            let scale = each(|i| parameters.log_scale[i].quick_exp());
            let x = parameters.solve(&each(|i| (y[i] - parameters.shift[i]) / scale[i]));
            let [upper, lower, density, _] = parameters.sums(&x);
            let Value { t, slope, .. } = parameters.value(&x);
            let by_t = each(|i| dy[i] * scale[i]);
            let pull = each(|i| (slope[i] - floor) / slope[i] * dlogp);
            let (alpha, beta) = (each(|i| rest * by_t[i] - pull[i]), each(|i| -rest * by_t[i] - pull[i]));
            let mut by_x = each(|i| floor * by_t[i]);
            let mut sum = [T::zero(); LANES];
            let exact = x.iter().enumerate().all(|(i, _)| Parameters::exact(upper[i], lower[i]));
            for (component, [by_l, by_mu, by_zeta]) in parameters.components.iter().zip(&mut gradients) {
                let mut shares = [Shares {
                    p: T::zero(),
                    q: T::zero(),
                    r: T::zero(),
                    z: T::zero(),
                    above: T::zero(),
                    below: T::zero(),
                }; LANES];
                for (i, shares) in shares.iter_mut().enumerate() {
                    let z = (x[i] - component.mu[i]) * component.inverse[i];
                    let (above, below) = both_sigmoids(z);
                    let pi = component.pi[i];
                    let r = pi * component.inverse[i] * above * below / density[i];
                    *shares =
                        Shares { p: pi * above / upper[i], q: pi * below / lower[i], r, z, above, below };
                }
                if !exact {
                    for (i, shares) in shares.iter_mut().enumerate() {
                        if !Parameters::exact(upper[i], lower[i]) {
                            *shares = parameters.shares(i, x[i], &parameters.logs(i, x[i]), component);
                        }
                    }
                }
                for (i, Shares { p, q, r, z, above, below }) in shares.into_iter().enumerate() {
                    by_l[i] = alpha[i] * p + beta[i] * q + pull[i] * r;
                    let d = alpha[i] * p * below - beta[i] * q * above + pull[i] * r * (below - above);
                    by_mu[i] = -component.inverse[i] * d;
                    let zeta = component.zeta[i] / bound;
                    by_zeta[i] = (-z * d - pull[i] * r) * (one - zeta * zeta);
                    sum[i] += by_l[i];
                    by_x[i] += component.inverse[i] * d;
                }
            }
            let by_s = each(|i| {
                let a = parameters.log_scale[i] / two;
                (t[i] * by_t[i] + dlogp) * (one - a * a)
            });
            for i in 0..count {
                let place = rows.place(first + i);
                (rows.x[place], dx[place]) = (x[i], by_x[i]);
                let (row, c) = ((first + i) / half, (first + i) % half);
                let d_o = &mut d_o[row * channels..][..channels];
                (d_o[c], d_o[half + c]) = (dy[i], by_s[i]);
                let d_head = &mut d_head[row * of_head..][..of_head];
                for (m, [by_l, by_mu, by_zeta]) in gradients.iter().enumerate() {
                    d_head[shape.place(0, m) + c] = by_l[i] - parameters.components[m].pi[i] * sum[i];
                    d_head[shape.place(1, m) + c] = by_mu[i];
                    d_head[shape.place(2, m) + c] = by_zeta[i];
                }
            }
        }
    }
}

impl<T: Scalar> Mixture for Cpu<T> {
    fn mix(
        &self,
        shape: MixtureShape,
        outputs: &NetworkOutputs<Buffer<T>>,
        x: &mut Buffer<T>,
        logp: &mut Buffer<T>,
    ) {
        let pixels = shape.grid.pixels();
        x.par_chunks_mut(pixels * shape.channels)
            .zip(outputs.o.par_chunks(pixels * shape.channels))
            .zip(head(outputs).par_chunks(pixels * shape.head()))
            .zip(&mut logp[..])
            .for_each(|(((x, o), head), logp)| {
                *logp += T::of(self.work.run(Forward(Rows { shape, o, head, x })));
            });
    }

    fn unmix(&self, shape: MixtureShape, outputs: &NetworkOutputs<Buffer<T>>, x: &mut Buffer<T>) {
        x.par_chunks_mut(ROWS * shape.channels)
            .zip(outputs.o.par_chunks(ROWS * shape.channels))
            .zip(head(outputs).par_chunks(ROWS * shape.head()))
            .for_each(|((x, o), head)| self.work.run(Inverse(Rows { shape, o, head, x })));
    }

    fn mix_backward(
        &self,
        shape: MixtureShape,
        outputs: &NetworkOutputs<Buffer<T>>,
        x: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        dlogp: f64,
        d_outputs: &mut NetworkOutputs<Buffer<T>>,
    ) {
        let (channels, of_head, dlogp) = (shape.channels, shape.head(), T::of(dlogp));
        let (d_o, d_head) = match d_outputs {
            NetworkOutputs { o, head: Some(head) } => (o, head),
            _ => panic!("the network of a mixture coupling has no head"),
        };
        x.par_chunks_mut(ROWS * channels)
            .zip(dx.par_chunks_mut(ROWS * channels))
            .zip(outputs.o.par_chunks(ROWS * channels))
            .zip(head(outputs).par_chunks(ROWS * of_head))
            .zip(d_o.par_chunks_mut(ROWS * channels))
            .zip(d_head.par_chunks_mut(ROWS * of_head))
            .for_each(|(((((x, dx), o), head), d_o), d_head)| {
                let rows = Rows { shape, o, head, x };
                self.work.run(Backward { rows, dx, d_o, d_head, dlogp });
            });
    }
}
