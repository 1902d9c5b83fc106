//! The context of products: an instruction set, and pools of reusable memory.

#![allow(unsafe_code)]

use super::buffer::{Buffer, Pool};
use super::element::Element;
use super::isa::{Isa, Task};

/// Creates and multiplies matrices of `E`.
#[derive(Clone)]
pub struct Workspace<E: Element> {
    isa: Isa,
    elements: Pool<E>,
    sums: Pool<E::Sum>,
}

impl<E: Element> Workspace<E> {
    /// Creates a workspace with an instruction set of this processor, from [`Element::available`] or checked
    /// by [`Isa::has_amx`], and the pools for elements and sums.
    pub fn new(isa: Isa, elements: Pool<E>, sums: Pool<E::Sum>) -> Self {
        Self { isa, elements, sums }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs a task compiled for the instruction set.
    pub fn run<T: Task>(&self, task: T) -> T::Output {
        // SAFETY: a workspace is created with an instruction set of this processor.
        unsafe { self.isa.run(task) }
    }

    /// A buffer with unspecified contents.
    pub fn take(&self, len: usize) -> Buffer<E> {
        self.elements.take(len)
    }

    /// A buffer of sums with unspecified contents.
    pub fn take_sums(&self, len: usize) -> Buffer<E::Sum> {
        self.sums.take(len)
    }

    /// The pool for sums.
    pub fn sums(&self) -> Pool<E::Sum> {
        self.sums.clone()
    }
}
