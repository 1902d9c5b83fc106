//! Interpreter of expressions: each instruction is a loop over a block of elements.
//!
//! A [`Block`] covers several rows of a few columns, at most [`BLOCK`] elements. Operands are slices of the
//! inputs if a block is contiguous in them, else they are gathered into arrays. An operand shared by many
//! blocks, such as a per-channel value, is gathered once.

use crate::cpu::Scalar;
use crate::cpu::elementary::{sigmoid, softplus};
use crate::elements::{Elements, OUT, PIXEL};
use crate::expr::{Expr, Op};

/// Maximum number of elements of a block. Its operands and intermediate values fit the first-level cache.
pub const BLOCK: usize = 512;

/// A range of the elements.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub first: [usize; 3],
    pub len: [usize; 3],
}

/// Elements evaluated together: `rows` along the second axis, `columns` along the third.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub first: [usize; 3],
    pub rows: usize,
    pub columns: usize,
}

impl Block {
    /// Number of elements.
    pub fn len(self) -> usize {
        self.rows * self.columns
    }
}

impl Region {
    /// The region of all elements.
    pub fn all(elements: &Elements) -> Self {
        Self { first: [0; 3], len: elements.axes.map(|axis| axis.len) }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.len.iter().product()
    }

    /// The blocks of the region.
    pub fn blocks(&self) -> Vec<Block> {
        let [images, height, width] = self.len;
        if self.count() == 0 {
            return vec![];
        }
        let (columns, rows) = (width.min(BLOCK), (BLOCK / width).clamp(1, height));
        let mut blocks = vec![];
        for i in 0..images {
            for j in (0..height).step_by(rows) {
                for k in (0..width).step_by(columns) {
                    let first = [self.first[0] + i, self.first[1] + j, self.first[2] + k];
                    blocks.push(Block { first, rows: rows.min(height - j), columns: columns.min(width - k) });
                }
            }
        }
        blocks
    }
}

/// An operand that is not computed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Leaf(Op);

#[derive(Clone, Copy, Debug)]
enum Operand {
    /// A leaf, by its number.
    Leaf(usize),
    /// The intermediate value at the operand's stack position.
    Value,
}

/// An instruction with its operands; the result is the intermediate value number `to`.
#[derive(Clone, Copy, Debug)]
struct Step {
    op: Op,
    a: Operand,
    b: Operand,
    to: usize,
}

/// An expression with resolved operands. Without steps its value is the first leaf.
#[derive(Clone, Debug)]
pub struct Program {
    leaves: Vec<Leaf>,
    steps: Vec<Step>,
}

impl Program {
    pub fn new(f: &Expr) -> Self {
        let (mut leaves, mut steps, mut stack) = (vec![], vec![], vec![]);
        for &op in f.ops() {
            match op {
                Op::Input(_) | Op::Old | Op::Constant(_) | Op::Checkerboard { .. } => {
                    let known = leaves.iter().position(|&leaf| leaf == Leaf(op));
                    stack.push(Operand::Leaf(known.unwrap_or(leaves.len())));
                    if known.is_none() {
                        leaves.push(Leaf(op));
                    }
                    continue;
                }
                _ => {}
            }
            let binary = matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div);
            let b = if binary { stack.pop() } else { Some(Operand::Value) };
            // The functions that build expressions guarantee that operands are on the stack.
            let (Some(a), Some(b)) = (stack.pop(), b) else { continue };
            steps.push(Step { op, a, b, to: stack.len() });
            stack.push(Operand::Value);
        }
        Self { leaves, steps }
    }
}

/// Position of a leaf's first element, and number of gathered rows and columns.
type Gathered = (usize, usize, usize);

/// Evaluates a program block by block.
pub struct Evaluator<'a, T> {
    program: &'a Program,
    elements: &'a Elements,
    inputs: &'a [&'a [T]],
    /// Gathered values of each leaf, and their origin.
    gathered: Vec<([T; BLOCK], Option<Gathered>)>,
    values: Vec<[T; BLOCK]>,
}

/// Calculates each element of `$out` from those of `$a`, which may be `$out` itself.
macro_rules! unary {
    ($a:expr, $out:ident, |$x:ident| $value:expr) => {
        match $a {
            Some(a) => {
                for (to, &$x) in $out.iter_mut().zip(a) {
                    *to = $value;
                }
            }
            None => {
                for to in $out.iter_mut() {
                    let $x = *to;
                    *to = $value;
                }
            }
        }
    };
}

/// The same for two operands.
macro_rules! binary {
    ($a:expr, $b:ident, $out:ident, $op:tt, $assign:tt) => {
        match $a {
            Some(a) => {
                for ((to, &x), &y) in $out.iter_mut().zip(a).zip($b) {
                    *to = x $op y;
                }
            }
            None => {
                for (to, &y) in $out.iter_mut().zip($b) {
                    *to $assign y;
                }
            }
        }
    };
}

impl<'a, T: Scalar> Evaluator<'a, T> {
    pub fn new(program: &'a Program, elements: &'a Elements, inputs: &'a [&'a [T]]) -> Self {
        let values = program.steps.iter().map(|step| step.to + 1).max().unwrap_or(0);
        Self {
            program,
            elements,
            inputs,
            gathered: vec![([T::zero(); BLOCK], None); program.leaves.len()],
            values: vec![[T::zero(); BLOCK]; values],
        }
    }

    /// Position of a block's first element in a view.
    #[inline(always)]
    pub fn place(&self, view: usize, block: Block) -> usize {
        let along = |axis: usize| block.first[axis] * self.elements.axes[axis].strides[view];
        self.elements.starts[view] + along(0) + along(1) + along(2)
    }

    /// Strides of rows and columns in a view.
    #[inline(always)]
    fn strides(&self, view: usize) -> (usize, usize) {
        let [_, row, column] = self.elements.axes;
        (row.strides[view], column.strides[view])
    }

    /// Returns whether a block is contiguous in a view.
    #[inline(always)]
    pub fn contiguous(&self, view: usize, block: Block) -> bool {
        let (row, column) = self.strides(view);
        (block.columns == 1 || column == 1) && (block.rows == 1 || row == block.columns)
    }

    /// Gathers the operands of a block. `old` is the part of the output that starts at position `first`.
    #[inline(always)]
    pub fn gather(&mut self, block: Block, old: &[T], first: usize) {
        for (number, &Leaf(op)) in self.program.leaves.iter().enumerate() {
            match op {
                Op::Input(index) if !self.contiguous(index, block) => {
                    self.gather_view(number, index, block, self.inputs[index], 0);
                }
                Op::Old => {
                    self.gathered[number].1 = None;
                    self.gather_view(number, OUT, block, old, first);
                }
                Op::Constant(value) if self.gathered[number].1.is_none() => {
                    self.gathered[number] = ([T::of(value); BLOCK], Some((0, 0, 0)));
                }
                Op::Checkerboard { width, parity } => {
                    let place = self.place(PIXEL, block);
                    let (row, column) = self.strides(PIXEL);
                    let to = &mut self.gathered[number].0;
                    let mut line = Cursor::new(place, width, parity);
                    for to in to[..block.len()].chunks_exact_mut(block.columns) {
                        let mut cursor = line;
                        if column == 0 {
                            to.fill(cursor.value());
                        } else {
                            for to in to {
                                *to = cursor.value();
                                cursor.advance(column);
                            }
                        }
                        line.advance(row);
                    }
                }
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn gather_view(&mut self, number: usize, view: usize, block: Block, from: &[T], first: usize) {
        let place = self.place(view, block) - first;
        let (row, column) = self.strides(view);
        let Block { rows, columns, .. } = block;
        let (to, known) = &mut self.gathered[number];
        // In a view that is broadcast along rows all rows are equal, and more may be present than needed.
        if row == 0
            && known.is_some_and(|(at, height, width)| at == place && width == columns && height >= rows)
        {
            return;
        }
        *known = Some((place, rows, columns));
        for (i, to) in to[..rows * columns].chunks_exact_mut(columns).enumerate() {
            let from = &from[place + i * row..];
            match column {
                0 => to.fill(from[0]),
                1 => to.iter_mut().zip(from).for_each(|(to, &from)| *to = from),
                _ => to.iter_mut().zip(from.iter().step_by(column)).for_each(|(to, &from)| *to = from),
            }
        }
    }

    /// The gathered elements of a leaf.
    #[inline(always)]
    fn leaf(&self, number: usize, block: Block) -> &[T] {
        match self.program.leaves[number] {
            Leaf(Op::Input(index)) if self.contiguous(index, block) => {
                &self.inputs[index][self.place(index, block)..][..block.len()]
            }
            _ => &self.gathered[number].0[..block.len()],
        }
    }

    /// Writes the values of a block with gathered operands to `out`.
    #[inline(always)]
    pub fn evaluate(&mut self, block: Block, out: &mut [T]) {
        let len = block.len();
        let out = &mut out[..len];
        let mut values = std::mem::take(&mut self.values);
        for step in &self.program.steps {
            // The first intermediate value is stored in the output: it becomes the result.
            let (below, above) = values.split_at_mut(step.to + 1);
            let to: &mut [T] = if step.to == 0 { &mut *out } else { &mut below[step.to][..len] };
            let a = match step.a {
                Operand::Leaf(number) => Some(self.leaf(number, block)),
                Operand::Value => None,
            };
            let b = match step.b {
                Operand::Leaf(number) => self.leaf(number, block),
                Operand::Value => above.first().map_or(&[][..], |value| &value[..len]),
            };
            let (zero, one) = (T::zero(), T::one());
            match step.op {
                Op::Add => binary!(a, b, to, +, +=),
                Op::Sub => binary!(a, b, to, -, -=),
                Op::Mul => binary!(a, b, to, *, *=),
                Op::Div => binary!(a, b, to, /, /=),
                Op::Neg => unary!(a, to, |x| -x),
                Op::Abs => unary!(a, to, |x| x.abs()),
                Op::Sqrt => unary!(a, to, |x| x.sqrt()),
                // NaN stays NaN.
                Op::Relu => unary!(a, to, |x| if x < zero { zero } else { x }),
                Op::Step => unary!(a, to, |x| if x > zero { one } else { zero }),
                Op::Exp => unary!(a, to, |x| x.exp()),
                Op::Log => unary!(a, to, |x| x.ln()),
                Op::Tanh => unary!(a, to, |x| x.tanh()),
                Op::Sigmoid => unary!(a, to, |x| sigmoid(x)),
                Op::Softplus => unary!(a, to, |x| softplus(x)),
                Op::Input(_) | Op::Old | Op::Constant(_) | Op::Checkerboard { .. } => {}
            }
        }
        self.values = values;
        if self.program.steps.is_empty() {
            out.iter_mut().zip(self.leaf(0, block)).for_each(|(to, &from)| *to = from);
        }
    }
}

/// A pixel of an image, for the checkerboard.
#[derive(Clone, Copy)]
struct Cursor {
    width: usize,
    column: usize,
    /// The sum of row and parity.
    row: usize,
}

impl Cursor {
    #[inline(always)]
    fn new(pixel: usize, width: usize, parity: usize) -> Self {
        let width = width.max(1);
        Self { width, column: pixel % width, row: (pixel / width).wrapping_add(parity) }
    }

    #[inline(always)]
    fn advance(&mut self, pixels: usize) {
        self.column += pixels;
        while self.column >= self.width {
            self.column -= self.width;
            self.row = self.row.wrapping_add(1);
        }
    }

    #[inline(always)]
    fn value<T: Scalar>(self) -> T {
        if self.row.wrapping_add(self.column).is_multiple_of(2) { T::one() } else { T::zero() }
    }
}
