//! [`ParamBuilder`]: a layer declares each of its tensors once, with name, shape and initialisation.
//!
//! ```
//! use glowflow::params::{Init, ParamBuilder, Source};
//!
//! let mut p = ParamBuilder::new(Source::Seed(0));
//! let bias = p.scope("norm", |p| {
//!     p.buffer("running_var", &[3], 1.0);
//!     p.parameter("bias", &[3], Init::Zeros)
//! });
//! assert_eq!((bias.start, bias.len), (0, 3));
//! assert_eq!(p.layout().parameters[0].name, "norm.bias");
//! assert_eq!(p.initial_buffers(), [1.0; 3]);
//! ```

use glowflow_kernels::{RngStream, Span};

use super::layout::{ConstantLayout, ConstantType, HiddenMatrix, Layout, Triangle};
use crate::random;

/// Initial values of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// 0
    Zeros,
    /// A constant.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform on `(−bound, bound)`.
    Uniform(f64),
    /// Given values.
    Values(Vec<f32>),
    /// Given values, plus normal noise with mean 0 and this standard deviation.
    Around(Vec<f32>, f64),
}

/// A tensor that is fixed at initialisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// A permutation: `y[i] = x[index[i]]`.
    Permutation(Vec<usize>),
    /// Values of 1 or −1.
    Signs(Vec<f64>),
}

/// Source of the constants when a flow is built.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// None: constants are empty, and only the layout is usable. Costs no memory.
    Layout,
    /// A new model's seed.
    Seed(u64),
    /// The constants of an existing model, in the order of declaration.
    Given(&'a [Constant]),
}

/// Collects the tensors of a model.
#[derive(Debug)]
pub struct ParamBuilder<'a> {
    source: Source<'a>,
    layout: Layout,
    inits: Vec<Init>,
    buffers: Vec<f32>,
    constants: Vec<Constant>,
    permutations: u64,
    prefix: String,
}

impl<'a> ParamBuilder<'a> {
    /// Creates a builder without tensors.
    pub fn new(source: Source<'a>) -> Self {
        Self {
            source,
            layout: Layout::default(),
            inits: vec![],
            buffers: vec![],
            constants: vec![],
            permutations: 0,
            prefix: String::new(),
        }
    }

    /// Declares tensors whose names are prefixed with `name` and a dot.
    pub fn scope<T>(&mut self, name: impl AsRef<str>, declare: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.prefix.len();
        self.prefix += name.as_ref();
        self.prefix.push('.');
        let declared = declare(self);
        self.prefix.truncate(outer);
        declared
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Declares a trained tensor.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Span {
        self.inits.push(init);
        self.layout.add(self.name(name), shape, None)
    }

    /// Declares a trained tensor whose squares the trainer may penalise.
    pub fn penalized(&mut self, name: &str, shape: &[usize], init: Init) -> Span {
        let span = self.parameter(name, shape, init);
        self.layout.penalized.push(span);
        span
    }

    /// Declares the trained weight of a convolution or linear layer, `[outputs, …]`, to which weight decay
    /// applies.
    pub fn weight(&mut self, name: &str, shape: &[usize], init: Init) -> Span {
        let span = self.parameter(name, shape, init);
        self.layout.decayed.push(span);
        span
    }

    /// Declares a [`weight`](Self::weight) whose outputs are a hidden layer, and which Muon may train.
    pub fn hidden_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Span {
        let span = self.weight(name, shape, init);
        let rows = shape.first().copied().unwrap_or(1);
        self.layout.hidden.push(HiddenMatrix { span, rows, columns: span.len / rows.max(1) });
        span
    }

    /// Declares a trained tensor in which only the directions of the rows matter, one row per element of the
    /// first axis. No row may be 0.
    pub fn directions(&mut self, name: &str, shape: &[usize], init: Init) -> Span {
        let span = self.parameter(name, shape, init);
        self.layout.directions.push(self.layout.parameters.len() - 1);
        span
    }

    /// Declares a trained square matrix with one triangle that is read.
    pub fn triangle(&mut self, name: &str, size: usize, triangle: Triangle, init: Init) -> Span {
        self.inits.push(init);
        self.layout.add(self.name(name), &[size, size], Some(triangle))
    }

    /// Declares a tensor that layers update in training mode. It has no gradient.
    pub fn buffer(&mut self, name: &str, shape: &[usize], value: f32) -> Span {
        let span = self.layout.add_buffer(self.name(name), shape);
        if !matches!(self.source, Source::Layout) {
            self.buffers.resize(self.layout.buffers_len(), value);
        }
        span
    }

    /// The random stream of a new model's next permutation; `None` for an existing model.
    pub fn permutation_stream(&mut self) -> Option<RngStream> {
        let id = random::PERMUTATION + self.permutations;
        self.permutations += 1;
        match self.source {
            Source::Seed(seed) => Some(RngStream { seed, id }),
            Source::Layout | Source::Given(_) => None,
        }
    }

    /// Declares a fixed permutation of `len` elements; `init` gives that of a new model.
    pub fn permutation(&mut self, name: &str, len: usize, init: impl FnOnce() -> Vec<usize>) -> Vec<usize> {
        match self.constant(name, len, ConstantType::Permutation, || Constant::Permutation(init())) {
            Constant::Permutation(index) => index,
            Constant::Signs(_) => vec![],
        }
    }

    /// Declares fixed signs, 1 or −1; `init` gives those of a new model.
    pub fn signs(&mut self, name: &str, len: usize, init: impl FnOnce() -> Vec<f64>) -> Vec<f64> {
        match self.constant(name, len, ConstantType::Signs, || Constant::Signs(init())) {
            Constant::Signs(signs) => signs,
            Constant::Permutation(_) => vec![],
        }
    }

    fn constant(
        &mut self,
        name: &str,
        len: usize,
        kind: ConstantType,
        init: impl FnOnce() -> Constant,
    ) -> Constant {
        let at = self.layout.constants.len();
        self.layout.constants.push(ConstantLayout { name: self.name(name), len, kind });
        let empty = || match kind {
            ConstantType::Permutation => Constant::Permutation(vec![]),
            ConstantType::Signs => Constant::Signs(vec![]),
        };
        match self.source {
            Source::Layout => empty(),
            Source::Seed(_) => {
                let constant = init();
                self.constants.push(constant.clone());
                constant
            }
            Source::Given(constants) => constants.get(at).cloned().unwrap_or_else(empty),
        }
    }

    /// The tensors declared so far.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tensors.
    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// The constants of a new model.
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// The initial buffers.
    pub fn initial_buffers(&self) -> &[f32] {
        &self.buffers
    }

    /// The initial parameters. Each tensor has its own random stream, identified by its position, so that
    /// they depend only on the seed.
    pub fn initial_parameters(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.layout.len()];
        let Source::Seed(seed) = self.source else { return values };
        for (i, (parameter, init)) in self.layout.parameters.iter().zip(&self.inits).enumerate() {
            let values = &mut values[parameter.span.range()];
            let stream = RngStream { seed, id: random::WEIGHTS + i as u64 };
            match init {
                Init::Zeros => {}
                Init::Constant(value) => values.fill(*value as f32),
                Init::Normal(deviation) => fill(values, |block| stream.normal(block).map(|x| deviation * x)),
                Init::Uniform(bound) => {
                    fill(values, |block| stream.uniform(block).map(|u| bound * (2.0 * u - 1.0)));
                }
                Init::Values(numbers) => values.copy_from_slice(numbers),
                Init::Around(numbers, deviation) => {
                    fill(values, |block| stream.normal(block).map(|x| deviation * x));
                    values.iter_mut().zip(numbers).for_each(|(value, number)| *value += number);
                }
            }
        }
        values
    }
}

fn fill(values: &mut [f32], four: impl Fn(u64) -> [f64; 4]) {
    for (block, values) in values.chunks_mut(4).enumerate() {
        values.iter_mut().zip(four(block as u64)).for_each(|(value, x)| *value = x as f32);
    }
}
