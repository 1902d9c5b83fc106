//! Element-wise expressions: small postfix programs that [`Primitives::map`](crate::Primitives::map) and
//! [`Primitives::reduce`](crate::Primitives::reduce) evaluate for each element.
//!
//! ```
//! use glowflow_kernels::expr::{constant, input};
//!
//! // (x + t)·exp(s), with the inputs x, t and s.
//! let f = (input(0) + input(1)) * input(2).exp();
//! assert_eq!(f.inputs(), 3);
//! let g = constant(2.0) * input(0).relu();
//! assert_eq!(g.stack(), 2);
//! ```

use std::ops::{Add, Div, Mul, Neg, Sub};

/// One instruction. Operands are on a stack; binary instructions pop the right operand first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Pushes the element of an input.
    Input(usize),
    /// Pushes the previous element of the output.
    Old,
    /// Pushes a constant.
    Constant(f64),
    /// Pushes 1 if `row + column + parity` of the pixel is even, and 0 otherwise. The second axis of the
    /// shape counts the pixels of an image of this width, row by row.
    Checkerboard {
        /// Pixels per row.
        width: usize,
        /// Offset added to row and column.
        parity: usize,
    },
    /// `−x`
    Neg,
    /// `|x|`
    Abs,
    /// `exp(x)`
    Exp,
    /// `log(x)`
    Log,
    /// `tanh(x)`
    Tanh,
    /// `1/(1 + exp(−x))`
    Sigmoid,
    /// `log(1 + exp(x))`, without overflow.
    Softplus,
    /// `√x`
    Sqrt,
    /// `max(x, 0)`
    Relu,
    /// 1 if `x > 0`, and 0 otherwise: the derivative of `relu`.
    Step,
    /// `x + y`
    Add,
    /// `x − y`
    Sub,
    /// `x·y`
    Mul,
    /// `x/y`
    Div,
}

/// An expression in postfix order: at most [`MAX_LEN`](Self::MAX_LEN) instructions,
/// [`MAX_STACK`](Self::MAX_STACK) intermediate values and [`MAX_INPUTS`](Self::MAX_INPUTS) inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    ops: Vec<Op>,
}

/// The element of input `index`, counted from 0.
///
/// # Panics
/// If `index` is not less than [`Expr::MAX_INPUTS`].
pub fn input(index: usize) -> Expr {
    assert!(index < Expr::MAX_INPUTS, "an expression has at most {} inputs", Expr::MAX_INPUTS);
    Expr::leaf(Op::Input(index))
}

/// The previous element of the output: `old() + f` accumulates.
pub fn old() -> Expr {
    Expr::leaf(Op::Old)
}

/// A constant.
pub fn constant(value: f64) -> Expr {
    Expr::leaf(Op::Constant(value))
}

/// 1 if `row + column + parity` of the pixel is even, and 0 otherwise: see [`Op::Checkerboard`].
pub fn checkerboard(width: usize, parity: usize) -> Expr {
    Expr::leaf(Op::Checkerboard { width, parity })
}

impl Expr {
    /// Maximum number of instructions.
    pub const MAX_LEN: usize = 40;
    /// Maximum number of simultaneous intermediate values.
    pub const MAX_STACK: usize = 8;
    /// Maximum number of inputs.
    pub const MAX_INPUTS: usize = 8;

    fn leaf(op: Op) -> Self {
        Self { ops: vec![op] }
    }

    fn unary(mut self, op: Op) -> Self {
        self.ops.push(op);
        self.checked()
    }

    fn binary(mut self, other: Self, op: Op) -> Self {
        self.ops.extend(other.ops);
        self.ops.push(op);
        self.checked()
    }

    fn checked(self) -> Self {
        assert!(
            self.ops.len() <= Self::MAX_LEN && self.stack() <= Self::MAX_STACK,
            "the expression is too large: {:?}",
            self.ops
        );
        self
    }

    /// The instructions.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Number of inputs: one more than the largest index.
    pub fn inputs(&self) -> usize {
        let index = |op: &Op| if let Op::Input(index) = op { index + 1 } else { 0 };
        self.ops.iter().map(index).max().unwrap_or(0)
    }

    /// Maximum number of simultaneous intermediate values.
    pub fn stack(&self) -> usize {
        let (mut depth, mut most) = (0_usize, 0);
        for op in &self.ops {
            match op {
                Op::Input(_) | Op::Old | Op::Constant(_) | Op::Checkerboard { .. } => depth += 1,
                Op::Add | Op::Sub | Op::Mul | Op::Div => depth -= 1,
                _ => {}
            }
            most = most.max(depth);
        }
        most
    }

    /// `|x|`
    #[must_use]
    pub fn abs(self) -> Self {
        self.unary(Op::Abs)
    }

    /// `exp(x)`
    #[must_use]
    pub fn exp(self) -> Self {
        self.unary(Op::Exp)
    }

    /// `log(x)`
    #[must_use]
    pub fn ln(self) -> Self {
        self.unary(Op::Log)
    }

    /// `tanh(x)`
    #[must_use]
    pub fn tanh(self) -> Self {
        self.unary(Op::Tanh)
    }

    /// `1/(1 + exp(−x))`
    #[must_use]
    pub fn sigmoid(self) -> Self {
        self.unary(Op::Sigmoid)
    }

    /// `log(1 + exp(x))`
    #[must_use]
    pub fn softplus(self) -> Self {
        self.unary(Op::Softplus)
    }

    /// `√x`
    #[must_use]
    pub fn sqrt(self) -> Self {
        self.unary(Op::Sqrt)
    }

    /// `max(x, 0)`
    #[must_use]
    pub fn relu(self) -> Self {
        self.unary(Op::Relu)
    }

    /// 1 if `x > 0`, and 0 otherwise.
    #[must_use]
    pub fn step(self) -> Self {
        self.unary(Op::Step)
    }

    /// 0 if `|x| ≤ least`, and `x` otherwise: keeps numbers from decaying to subnormal ones, with which CPUs are
    /// slow.
    #[must_use]
    pub fn zero_up_to(self, least: f64) -> Self {
        self.clone() * (self.abs() - constant(least)).step()
    }
}

impl Add for Expr {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.binary(other, Op::Add)
    }
}

impl Sub for Expr {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.binary(other, Op::Sub)
    }
}

impl Mul for Expr {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        self.binary(other, Op::Mul)
    }
}

impl Div for Expr {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        self.binary(other, Op::Div)
    }
}

impl Neg for Expr {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(Op::Neg)
    }
}
