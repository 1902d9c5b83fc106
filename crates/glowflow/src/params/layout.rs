//! Names, shapes and places of a model's tensors (`docs/model.md`).
//!
//! All parameters lie in one flat buffer, in the order of the file's table, and so do all buffers. Constants are kept
//! by the layers.

use glowflow_kernels::Span;

/// The part of a square matrix that is read; the rest is stored as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// Strictly below the diagonal.
    Lower,
    /// Strictly above the diagonal.
    Upper,
}

/// One tensor in a flat buffer.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in a model file.
    pub name: String,
    /// Its shape in a model file.
    pub shape: Vec<usize>,
    /// Its place in the flat buffer.
    pub span: Span,
    /// The triangle that is read, if not all of it is.
    pub triangle: Option<Triangle>,
}

/// A weight matrix between hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenMatrix {
    /// Its place in the flat buffer.
    pub span: Span,
    /// Outputs.
    pub rows: usize,
    /// Inputs, with the taps of a convolution.
    pub columns: usize,
}

/// Content of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstantType {
    /// A permutation of `0..len`.
    Permutation,
    /// Numbers that are 1 or −1.
    Signs,
}

/// Name and size of a constant.
#[derive(Clone, Debug)]
pub struct ConstantLayout {
    /// Its name in a model file.
    pub name: String,
    /// Number of elements.
    pub len: usize,
    /// Its content.
    pub kind: ConstantType,
}

/// All tensors of a model.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Trained tensors, in the order of the flat buffer.
    pub parameters: Vec<Parameter>,
    /// Tensors that layers update in training mode, in the order of their flat buffer.
    pub buffers: Vec<Parameter>,
    /// Constants, in the order in which they were declared.
    pub constants: Vec<ConstantLayout>,
    /// Indices of the parameters whose rows count by their direction alone: none may be 0.
    pub directions: Vec<usize>,
    /// Parameters whose squares are penalised.
    pub penalized: Vec<Span>,
    /// Weights of convolutions and linear layers, to which weight decay applies.
    pub decayed: Vec<Span>,
    /// Those of them that are matrices between hidden layers, which an optimiser of matrices can train.
    pub hidden: Vec<HiddenMatrix>,
    len: usize,
    buffers_len: usize,
}

impl Layout {
    /// Adds a parameter.
    pub(super) fn add(&mut self, name: String, shape: &[usize], triangle: Option<Triangle>) -> Span {
        add(&mut self.parameters, &mut self.len, name, shape, triangle)
    }

    /// Adds a buffer.
    pub(super) fn add_buffer(&mut self, name: String, shape: &[usize]) -> Span {
        add(&mut self.buffers, &mut self.buffers_len, name, shape, None)
    }

    /// Elements of the flat buffer of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of the flat buffer of buffers.
    pub fn buffers_len(&self) -> usize {
        self.buffers_len
    }

    /// Sets to 0 what is stored of triangular matrices but never read.
    pub fn clear_unread<T: Copy + Default>(&self, weights: &mut [T]) {
        for parameter in &self.parameters {
            let Some(triangle) = parameter.triangle else { continue };
            let n = parameter.shape[0];
            for (i, row) in weights[parameter.span.range()].chunks_exact_mut(n).enumerate() {
                let unread = match triangle {
                    Triangle::Lower => i..n,
                    Triangle::Upper => 0..i + 1,
                };
                row[unread].fill(T::default());
            }
        }
    }
}

fn add(
    list: &mut Vec<Parameter>,
    total: &mut usize,
    name: String,
    shape: &[usize],
    triangle: Option<Triangle>,
) -> Span {
    let span = Span { start: *total, len: shape.iter().product() };
    *total += span.len;
    list.push(Parameter { name, shape: shape.to_vec(), span, triangle });
    span
}
