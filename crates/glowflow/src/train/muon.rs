//! Muon (Jordan et al. 2024): orthogonalised momentum, for weight matrices between hidden layers.
//!
//! ```text
//! M ← 0.95·M + 0.05·G                       the first moment, below 10⁻³⁰ 0; G the clipped gradient
//! N = 0.95·M + 0.05·G                       Nesterov's form
//! W ← W − η·decay·W − η·√max(1, rows/columns)·orthogonalize(N)
//! ```
//!
//! A matrix `[rows, columns]` has one row per output; the taps of a convolution are columns. The size of a
//! step depends on the learning rate η, but not on the magnitude of the gradient. The second moment is not
//! used.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Device, Primitives, Real, Repeated, Span, Strided, Training, View, ViewMut};

use crate::params::HiddenMatrix;

/// Decay of the momentum.
const MOMENTUM: f64 = 0.95;
/// Smaller momenta count as 0.
const SMALLEST: f64 = 1e-30;

/// Scalars of one update.
#[derive(Clone, Copy, Debug)]
pub struct MuonUpdate {
    /// Factor applied to the gradient: below 1 if it is clipped.
    pub shrink: f64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Decay of the moving average of the weights.
    pub ema_decay: f64,
}

/// Optimiser of a model's hidden matrices.
pub struct Muon<D: Device> {
    /// Matrices grouped by shape.
    groups: Vec<Group>,
    /// Values that vary from step to step, in a buffer because the work is captured.
    rates: D::Buffer,
    work: Repeated<D, ()>,
}

/// Matrices of one shape.
struct Group {
    shape: [usize; 2],
    spans: Vec<Span>,
}

/// Offsets in the buffer of rates.
#[derive(Clone, Copy)]
enum Rate {
    /// `0.05·shrink`
    Gradient,
    /// η
    Step,
    /// `1 − η·decay`
    Keep,
    Average,
    /// 1 minus the decay of the average.
    Renew,
}

const RATES: usize = 5;

impl<D: Primitives> Muon<D> {
    pub fn new(device: &D, matrices: &[HiddenMatrix]) -> Self {
        let mut groups: Vec<Group> = vec![];
        for &HiddenMatrix { span, rows, columns } in matrices {
            let shape = [rows, columns];
            match groups.iter_mut().find(|group| group.shape == shape) {
                Some(group) => group.spans.push(span),
                None => groups.push(Group { shape, spans: vec![span] }),
            }
        }
        Self { groups, rates: device.zeros(RATES), work: Repeated::new() }
    }

    /// Sets the matrices' gradient to 0.
    pub fn clear(&self, device: &D, gradient: &mut D::Buffer) {
        for &span in self.groups.iter().flat_map(|group| &group.spans) {
            device.map(&constant(0.0), shape(span), &[], write(gradient, span));
        }
    }

    /// Performs one step. Gradients must be finite; they are 0 afterwards.
    pub fn step(&mut self, device: &D, update: MuonUpdate, training: Training<'_, D::Buffer>) {
        let mut rates = [0.0; RATES];
        for (rate, value) in [
            (Rate::Gradient, (1.0 - MOMENTUM) * update.shrink),
            (Rate::Step, update.learning_rate),
            (Rate::Keep, 1.0 - update.learning_rate * update.weight_decay),
            (Rate::Average, update.ema_decay),
            (Rate::Renew, 1.0 - update.ema_decay),
        ] {
            rates[rate as usize] = value;
        }
        device.copy(&device.upload(&rates.map(D::Real::of)), &mut self.rates);
        let Self { groups, rates, work } = self;
        let Training { weights, gradient, first, ema, .. } = training;
        work.run(device, |device| {
            for group in &*groups {
                let momenta = momenta(device, group, rates, gradient, first);
                let directions = device.orthogonalize(group.spans.len(), group.shape, momenta);
                let [rows, columns] = group.shape;
                let scale = (rows as f64 / columns as f64).max(1.0).sqrt();
                for (i, &span) in group.spans.iter().enumerate() {
                    let changed = input(0) * old() - constant(scale) * input(1) * input(2);
                    let direction = View { buffer: &directions, at: place(i * span.len) };
                    let by = [rate(rates, Rate::Keep), rate(rates, Rate::Step), direction];
                    device.map(&changed, shape(span), &by, write(weights, span));
                    let average = input(0) * old() + input(1) * input(2);
                    let by = [rate(rates, Rate::Average), rate(rates, Rate::Renew), read(weights, span)];
                    device.map(&average, shape(span), &by, write(ema, span));
                    device.map(&constant(0.0), shape(span), &[], write(gradient, span));
                }
            }
        });
    }
}

/// Updates the momenta of matrices of one shape, and returns them in Nesterov's form.
fn momenta<D: Primitives>(
    device: &D,
    group: &Group,
    rates: &D::Buffer,
    gradient: &D::Buffer,
    first: &mut D::Buffer,
) -> D::Buffer {
    let mut momenta = device.scratch(group.spans.iter().map(|span| span.len).sum());
    for (i, &span) in group.spans.iter().enumerate() {
        let (by, gradient) = (rate(rates, Rate::Gradient), read(gradient, span));
        let momentum = (constant(MOMENTUM) * old() + input(0) * input(1)).zero_up_to(SMALLEST);
        device.map(&momentum, shape(span), &[by, gradient], write(first, span));
        let nesterov = constant(MOMENTUM) * input(2) + input(0) * input(1);
        let to = ViewMut { buffer: &mut momenta, at: place(i * span.len) };
        device.map(&nesterov, shape(span), &[by, gradient, read(first, span)], to);
    }
    momenta
}

fn shape(span: Span) -> [usize; 3] {
    [1, 1, span.len]
}

fn place(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 1] }
}

/// View of a matrix in a flat buffer of all parameters.
fn read<B>(buffer: &B, span: Span) -> View<'_, B> {
    View { buffer, at: place(span.start) }
}

fn write<B>(buffer: &mut B, span: Span) -> ViewMut<'_, B> {
    ViewMut { buffer, at: place(span.start) }
}

/// One of the rates, broadcast to every element.
fn rate<B>(rates: &B, rate: Rate) -> View<'_, B> {
    View { buffer: rates, at: Strided { start: rate as usize, strides: [0, 0, 0] } }
}
