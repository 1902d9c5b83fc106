//! What products work with: an instruction set, and memory that is used again.

#![allow(unsafe_code)]

use super::buffer::{Buffer, Pool};
use super::element::Element;
use super::isa::{Isa, Task};

/// Where matrices of `E` are made and multiplied.
#[derive(Clone)]
pub struct Workspace<E: Element> {
    isa: Isa,
    elements: Pool<E>,
    sums: Pool<E::Sum>,
}

impl<E: Element> Workspace<E> {
    /// With an instruction set that [`Element::available`] knows, and the pool that sums come from.
    pub fn new(isa: Isa, elements: Pool<E>, sums: Pool<E::Sum>) -> Self {
        Self { isa, elements, sums }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs a task with all that the instruction set has.
    pub fn run<T: Task>(&self, task: T) -> T::Output {
        // SAFETY: a workspace is made with an instruction set that the processor has.
        unsafe { self.isa.run(task) }
    }

    /// A buffer of any contents.
    pub fn take(&self, len: usize) -> Buffer<E> {
        self.elements.take(len)
    }

    /// A buffer of sums, of any contents.
    pub fn take_sums(&self, len: usize) -> Buffer<E::Sum> {
        self.sums.take(len)
    }

    /// The pool that sums come from.
    pub fn sums(&self) -> Pool<E::Sum> {
        self.sums.clone()
    }
}
