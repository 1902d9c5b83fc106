//! Computed with logarithms, with a map for each term of each component; Newton's method is unrolled, with a
//! mask of the numbers that have not converged.

use num_traits::Float;

use super::{BOUND, FLOOR, ITERATIONS, Mixture, MixtureShape};
use crate::expr::{Expr, constant, input, old};
use crate::ops::network_outputs::{head, head_mut};
use crate::ops::views::{Rows, read, write};
use crate::ops::{NetworkOutputs, Reference};
use crate::primitives::{Primitives, Strided, View};
use crate::real::Real;

/// Larger than any step.
const NO_STEP: f64 = 1e30;

/// Numbers of arrays `[rows, C/2]`.
struct Numbers<'a, D: Primitives> {
    device: &'a D,
    half: Rows,
}

impl<D: Primitives> Numbers<'_, D> {
    fn each(&self) -> Strided {
        self.half.each()
    }

    fn view<'b>(&self, buffer: &'b D::Buffer) -> View<'b, D::Buffer> {
        read(buffer, self.each())
    }

    /// `f` of several views.
    fn of(&self, f: &Expr, inputs: &[View<'_, D::Buffer>]) -> D::Buffer {
        let mut y = self.device.scratch(self.half.len());
        self.device.map(f, self.half.shape(), inputs, write(&mut y, self.each()));
        y
    }

    /// `f` of several arrays.
    fn map(&self, f: &Expr, inputs: &[&D::Buffer]) -> D::Buffer {
        let inputs: Vec<_> = inputs.iter().map(|buffer| self.view(buffer)).collect();
        self.of(f, &inputs)
    }

    /// `f` of several arrays and the previous output.
    fn change(&self, f: &Expr, inputs: &[&D::Buffer], y: &mut D::Buffer) {
        let inputs: Vec<_> = inputs.iter().map(|buffer| self.view(buffer)).collect();
        self.device.map(f, self.half.shape(), &inputs, write(y, self.each()));
    }

    /// `log Σ exp(x)` over several arrays.
    fn log_sum_exp(&self, x: &[D::Buffer]) -> D::Buffer {
        let mut most = self.map(&input(0), &[&x[0]]);
        for x in &x[1..] {
            self.change(&(old() + (input(0) - old()).relu()), &[x], &mut most);
        }
        let mut sum = self.map(&constant(0.0), &[]);
        for x in x {
            self.change(&(old() + (input(0) - input(1)).exp()), &[x, &most], &mut sum);
        }
        self.map(&(input(0) + input(1).ln()), &[&most, &sum])
    }
}

/// `log σ(z)`
fn log_sigmoid(z: Expr) -> Expr {
    -(-z).softplus()
}

/// Parameters of the map.
struct Parameters<'a, D: Primitives> {
    numbers: Numbers<'a, D>,
    shape: MixtureShape,
    shift: D::Buffer,
    /// a
    log_scale: D::Buffer,
    log_pi: Vec<D::Buffer>,
    mu: Vec<D::Buffer>,
    zeta: Vec<D::Buffer>,
}

/// t and S at an x, and their intermediate values: z and the terms of log F, log G and log f for each
/// component, and these logarithms.
struct Value<B> {
    z: Vec<B>,
    upper: Vec<B>,
    lower: Vec<B>,
    density: Vec<B>,
    logs: [B; 3],
    t: B,
    slope: B,
}

impl<'a, D: Primitives> Parameters<'a, D> {
    fn read(device: &'a D, shape: MixtureShape, outputs: &NetworkOutputs<D::Buffer>) -> Self {
        let half = Rows { rows: shape.grid.rows(), channels: shape.half() };
        let numbers = Numbers { device, half };
        let of_o = |first| read(&outputs.o, half.part(shape.channels, first));
        let of_head = |parameter, component| {
            read(head(outputs), half.part(shape.head(), shape.place(parameter, component)))
        };
        let components = 0..shape.components;
        let l: Vec<_> = components.clone().map(|m| numbers.of(&input(0), &[of_head(0, m)])).collect();
        let log = numbers.log_sum_exp(&l);
        let mu = |m| numbers.of(&(input(0) + constant(shape.offset(m))), &[of_head(1, m)]);
        let bounded = constant(BOUND) * (input(0) * constant(1.0 / BOUND)).tanh();
        Self {
            shift: numbers.of(&input(0), &[of_o(0)]),
            log_scale: numbers
                .of(&(constant(2.0) * (input(0) * constant(0.5)).tanh()), &[of_o(shape.half())]),
            log_pi: l.iter().map(|l| numbers.map(&(input(0) - input(1)), &[l, &log])).collect(),
            mu: components.clone().map(mu).collect(),
            zeta: components.map(|m| numbers.of(&bounded, &[of_head(2, m)])).collect(),
            numbers,
            shape,
        }
    }

    /// The transformed numbers, in `x` or in its gradient.
    fn last_half(&self) -> Strided {
        self.numbers.half.part(self.shape.channels, self.shape.half())
    }

    fn value(&self, x: &D::Buffer) -> Value<D::Buffer> {
        let numbers = &self.numbers;
        let f = (input(0) - input(1)) * (-input(2)).exp();
        let z: Vec<_> =
            self.mu.iter().zip(&self.zeta).map(|(mu, zeta)| numbers.map(&f, &[x, mu, zeta])).collect();
        let terms = |f: Expr| -> Vec<D::Buffer> {
            let of = |((z, log_pi), zeta)| numbers.map(&(input(1) + f.clone()), &[z, log_pi, zeta]);
            z.iter().zip(&self.log_pi).zip(&self.zeta).map(of).collect()
        };
        let upper = terms(log_sigmoid(input(0)));
        let lower = terms(log_sigmoid(-input(0)));
        let density = terms(log_sigmoid(input(0)) + log_sigmoid(-input(0)) - input(2));
        let logs = [&upper, &lower, &density].map(|terms| numbers.log_sum_exp(terms));
        let (floor, rest) = (constant(FLOOR), constant(1.0 - FLOOR));
        let [of_upper, of_lower, of_density] = &logs;
        let f = rest.clone() * (input(0) - input(1)) + floor.clone() * input(2);
        let t = numbers.map(&f, &[of_upper, of_lower, x]);
        let f = rest * (input(0) - input(1) - input(2)).exp() + floor;
        let slope = numbers.map(&f, &[of_density, of_upper, of_lower]);
        Value { z, upper, lower, density, logs, t, slope }
    }

    /// `(y − b)·exp(−a)`
    fn target(&self, y: &D::Buffer) -> D::Buffer {
        let inputs =
            [read(y, self.last_half()), self.numbers.view(&self.shift), self.numbers.view(&self.log_scale)];
        self.numbers.of(&((input(0) - input(1)) * (-input(2)).exp()), &inputs)
    }

    /// The x with this t.
    fn solve(&self, t: &D::Buffer) -> D::Buffer {
        let numbers = &self.numbers;
        let (floor, rest) = (constant(FLOOR), constant(1.0 - FLOOR));
        let inverse = rest * (-input(2)).exp();
        let root = (input(0) + inverse.clone() * input(1)) / (inverse + floor);
        let roots: Vec<_> =
            self.mu.iter().zip(&self.zeta).map(|(mu, zeta)| numbers.map(&root, &[t, mu, zeta])).collect();
        let [mut low, mut high] = [(); 2].map(|()| numbers.map(&input(0), &[&roots[0]]));
        let mut x = numbers.map(&constant(0.0), &[]);
        for (root, log_pi) in roots.iter().zip(&self.log_pi) {
            numbers.change(&(old() - (old() - input(0)).relu()), &[root], &mut low);
            numbers.change(&(old() + (input(0) - old()).relu()), &[root], &mut high);
            numbers.change(&(old() + input(0) * input(1).exp()), &[root, log_pi], &mut x);
        }
        let f = old() + (input(0) - old()).relu() - (old() - input(1)).relu();
        numbers.change(&f, &[&low, &high], &mut x);
        let mut active = numbers.map(&constant(1.0), &[]);
        let mut last = numbers.map(&constant(NO_STEP), &[]);
        for _ in 0..ITERATIONS {
            let value = self.value(&x);
            let residual = numbers.map(&(input(0) - input(1)), &[&value.t, t]);
            let f = old() + (constant(1.0) - input(0).step()) * (input(1) - old()).relu();
            numbers.change(&f, &[&residual, &x], &mut low);
            let f = old() - (constant(1.0) - (-input(0)).step()) * (old() - input(1)).relu();
            numbers.change(&f, &[&residual, &x], &mut high);
            let mut next = numbers.map(&(input(0) - input(1) / input(2)), &[&x, &residual, &value.slope]);
            let epsilon = D::Real::epsilon().wide();
            let tolerance = numbers.map(&(constant(4.0 * epsilon) * (constant(1.0) + input(0).abs())), &[&x]);
            let f = ((input(0) / input(1)).abs() - input(2)).step();
            let far = numbers.map(&f, &[&residual, &value.slope, &tolerance]);
            let outside = (input(0) - input(5) - old()).step() + (old() - input(5) - input(1)).step();
            let slow = ((constant(2.0) * input(2)).abs() - (input(3) * input(4)).abs()).step();
            let f =
                old() + input(6) * (outside + slow).step() * (constant(0.5) * (input(0) + input(1)) - old());
            let inputs = [&low, &high, &residual, &last, &value.slope, &tolerance, &far];
            numbers.change(&f, &inputs, &mut next);
            let step = numbers.map(&(input(0) - input(1)), &[&next, &x]);
            numbers.change(&(old() + input(0) * (input(1) - old())), &[&active, &next], &mut x);
            let unsolved = input(1).abs() - constant(8.0 * epsilon) * (constant(1.0) + input(2).abs());
            numbers.change(&(old() * input(0) * unsolved.step()), &[&far, &residual, t], &mut active);
            last = step;
        }
        x
    }
}

pub fn mix<D: Primitives>(
    device: &D,
    shape: MixtureShape,
    outputs: &NetworkOutputs<D::Buffer>,
    x: &mut D::Buffer,
    logp: &mut D::Buffer,
) {
    let parameters = Parameters::read(device, shape, outputs);
    let numbers = &parameters.numbers;
    let Value { t, slope, .. } =
        parameters.value(&numbers.of(&input(0), &[read(&*x, parameters.last_half())]));
    let inputs = [&t, &parameters.log_scale, &parameters.shift].map(|buffer| numbers.view(buffer));
    let f = input(0) * input(1).exp() + input(2);
    device.map(&f, numbers.half.shape(), &inputs, write(x, parameters.last_half()));
    let (grid, half) = (shape.grid, shape.half());
    let by_images = Strided { start: 0, strides: [grid.pixels() * half, half, 1] };
    let inputs = [&slope, &parameters.log_scale].map(|buffer| read(buffer, by_images));
    let per_image = Strided { start: 0, strides: [1, 0, 0] };
    let f = input(0).ln() + input(1);
    device.reduce(&f, [grid.batch, grid.pixels(), half], &inputs, write(logp, per_image), true);
}

pub fn unmix<D: Primitives>(
    device: &D,
    shape: MixtureShape,
    outputs: &NetworkOutputs<D::Buffer>,
    x: &mut D::Buffer,
) {
    let parameters = Parameters::read(device, shape, outputs);
    let numbers = &parameters.numbers;
    let solved = parameters.solve(&parameters.target(x));
    let to = write(x, parameters.last_half());
    device.map(&input(0), numbers.half.shape(), &[numbers.view(&solved)], to);
}

pub fn backward<D: Primitives>(
    device: &D,
    shape: MixtureShape,
    outputs: &NetworkOutputs<D::Buffer>,
    x: &mut D::Buffer,
    dx: &mut D::Buffer,
    dlogp: f64,
    d_outputs: &mut NetworkOutputs<D::Buffer>,
) {
    let parameters = Parameters::read(device, shape, outputs);
    let (numbers, last_half) = (&parameters.numbers, parameters.last_half());
    let (array, half) = (numbers.half.shape(), numbers.half);
    let (floor, rest) = (constant(FLOOR), constant(1.0 - FLOOR));
    let solved = parameters.solve(&parameters.target(x));
    let Value { z, upper, lower, density, logs, t, slope } = parameters.value(&solved);
    let dy = numbers.of(&input(0), &[read(&*dx, last_half)]);
    let by_t = numbers.map(&(input(0) * input(1).exp()), &[&dy, &parameters.log_scale]);
    let f = constant(dlogp) * (input(0) - floor.clone()) / input(0);
    let pull = numbers.map(&f, &[&slope]);
    let alpha = numbers.map(&(rest.clone() * input(0) - input(1)), &[&by_t, &pull]);
    let beta = numbers.map(&(-(rest * input(0)) - input(1)), &[&by_t, &pull]);

    let mut by_x = numbers.map(&(floor * input(0)), &[&by_t]);
    let mut sum = numbers.map(&constant(0.0), &[]);
    let share = |terms: &[D::Buffer], log: &D::Buffer| -> Vec<D::Buffer> {
        terms.iter().map(|term| numbers.map(&(input(0) - input(1)).exp(), &[term, log])).collect()
    };
    let [p, q, r] =
        [(&upper, &logs[0]), (&lower, &logs[1]), (&density, &logs[2])].map(|(terms, log)| share(terms, log));
    let mut by_l = vec![];
    for m in 0..shape.components {
        // Each share times its factor.
        let product = |a: &D::Buffer, b: &D::Buffer| numbers.map(&(input(0) * input(1)), &[a, b]);
        let (p, q, r) = (product(&alpha, &p[m]), product(&beta, &q[m]), product(&pull, &r[m]));
        let total = numbers.map(&(input(0) + input(1) + input(2)), &[&p, &q, &r]);
        numbers.change(&(old() + input(0)), &[&total], &mut sum);
        by_l.push(total);
        let (above, below) = (input(3).sigmoid(), (-input(3)).sigmoid());
        let f = input(0) * below.clone() - input(1) * above.clone() + input(2) * (below - above);
        let d = numbers.map(&f, &[&p, &q, &r, &z[m]]);
        let zeta = &parameters.zeta[m];
        numbers.change(&(old() + (-input(1)).exp() * input(0)), &[&d, zeta], &mut by_x);
        let place = |parameter| half.part(shape.head(), shape.place(parameter, m));
        let inputs = [&d, zeta].map(|buffer| numbers.view(buffer));
        let by_mu = -((-input(1)).exp() * input(0));
        device.map(&by_mu, array, &inputs, write(head_mut(d_outputs), place(1)));
        let inputs = [&d, zeta, &z[m], &r].map(|buffer| numbers.view(buffer));
        let relative = input(1) * constant(1.0 / BOUND);
        let by_zeta = (-(input(2) * input(0)) - input(3)) * (constant(1.0) - relative.clone() * relative);
        device.map(&by_zeta, array, &inputs, write(head_mut(d_outputs), place(2)));
    }
    for (m, (by_l, log_pi)) in by_l.iter().zip(&parameters.log_pi).enumerate() {
        let inputs = [by_l, log_pi, &sum].map(|buffer| numbers.view(buffer));
        let at = half.part(shape.head(), shape.place(0, m));
        device.map(&(input(0) - input(1).exp() * input(2)), array, &inputs, write(head_mut(d_outputs), at));
    }
    let at = |first| half.part(shape.channels, first);
    device.map(&input(0), array, &[numbers.view(&dy)], write(&mut d_outputs.o, at(0)));
    let inputs = [&t, &by_t, &parameters.log_scale].map(|buffer| numbers.view(buffer));
    let half_a = || constant(0.5) * input(2);
    let by_s = (input(0) * input(1) + constant(dlogp)) * (constant(1.0) - half_a() * half_a());
    device.map(&by_s, array, &inputs, write(&mut d_outputs.o, at(shape.half())));
    device.map(&input(0), array, &[numbers.view(&by_x)], write(dx, last_half));
    device.map(&input(0), array, &[numbers.view(&solved)], write(x, last_half));
}

impl<D: Primitives> Mixture for Reference<D> {}
