//! What products work with: an instruction set, and memory that is used again.

use super::buffer::{Buffer, Pool};
use super::element::Element;
use super::simd::Isa;

/// Where matrices of `E` are made and multiplied.
#[derive(Clone)]
pub struct Workspace<E: Element> {
    pub isa: Isa,
    elements: Pool<E>,
    sums: Pool<E::Sum>,
}

impl<E: Element> Workspace<E> {
    /// With an instruction set that [`Element::available`] knows, and the pool that sums come from.
    pub fn new(isa: Isa, elements: Pool<E>, sums: Pool<E::Sum>) -> Self {
        Self { isa, elements, sums }
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
