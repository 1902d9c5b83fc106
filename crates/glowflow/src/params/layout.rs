//! Names, shapes and spans of a model's tensors (`docs/model.md`).
//!
//! All parameters are stored in one flat buffer, in the order of the file's table, and so are all buffers.
//! Constants are held by the layers.

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
    /// Its span in the flat buffer.
    pub span: Span,
    /// The triangle that is read, if only one is.
    pub triangle: Option<Triangle>,
}

/// A weight matrix between hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenMatrix {
    /// Its span in the flat buffer.
    pub span: Span,
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs, including the taps of a convolution.
    pub columns: usize,
}

/// Content of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstantType {
    /// A permutation of `0..len`.
    Permutation,
    /// Values of 1 or −1.
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
    /// Constants, in the order of declaration.
    pub constants: Vec<ConstantLayout>,
    /// Indices of the parameters in which only the directions of the rows matter: no row may be 0.
    pub directions: Vec<usize>,
    /// Parameters whose squares are penalised.
    pub penalized: Vec<Span>,
    /// Weights of convolutions and linear layers, to which weight decay applies.
    pub decayed: Vec<Span>,
    /// The subset of them that are matrices between hidden layers, which a matrix optimiser can train.
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

    /// Number of elements in the flat buffer of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of elements in the flat buffer of buffers.
    pub fn buffers_len(&self) -> usize {
        self.buffers_len
    }

    /// Zeroes the unread part of triangular matrices.
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
