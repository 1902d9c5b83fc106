//! Tensors of a file: strided views of its bytes, converted to numbers on demand.

use std::sync::Arc;

use crate::element::Element;

/// Maximum number of axes of a tensor.
pub(crate) const MAX_AXES: usize = 8;

/// A tensor: element `(i, j, …)` is number `offset + i·strides[0] + j·strides[1] + …` of a storage.
#[derive(Clone, Debug)]
pub struct Array {
    /// Its shape.
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    element: Element,
    /// Bytes, shared with other tensors.
    bytes: Arc<Vec<u8>>,
    /// Position of the first element in `bytes`.
    start: usize,
}

/// A part of a buffer that several tensors share, and its element type.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub element: Element,
    pub bytes: Arc<Vec<u8>>,
    /// Position of the first element in `bytes`.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Array {
    /// A view of a storage; the error states the problem with it.
    pub(crate) fn view(
        storage: &Storage,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() {
            return Err(format!("the shape {shape:?} does not fit the strides {strides:?}"));
        }
        if shape.len() > MAX_AXES {
            return Err(format!("a shape of {} axes is not supported", shape.len()));
        }
        let size = storage.element.size();
        let held = storage.bytes.len().checked_sub(storage.start);
        if held.is_none_or(|held| storage.len.checked_mul(size).is_none_or(|bytes| bytes > held)) {
            return Err(format!("the storage of {} numbers reaches beyond the file", storage.len));
        }
        let count = shape.iter().try_fold(1_usize, |count, &len| count.checked_mul(len));
        if count.is_none_or(|count| count > storage.len) {
            return Err(format!("a tensor of the shape {shape:?} has more numbers than its storage"));
        }
        if count != Some(0) {
            let last = shape.iter().zip(&strides).try_fold(offset, |last, (&len, &stride)| {
                (len - 1).checked_mul(stride).and_then(|distance| last.checked_add(distance))
            });
            if last.is_none_or(|last| last >= storage.len) {
                return Err(format!(
                    "a tensor of the shape {shape:?}, the strides {strides:?} and the offset {offset} reaches beyond its \
                     storage of {} numbers",
                    storage.len
                ));
            }
        }
        let start = if count == Some(0) { 0 } else { storage.start + offset * size };
        Ok(Self { shape, strides, element: storage.element, bytes: storage.bytes.clone(), start })
    }

    /// A tensor that covers a storage, in C order.
    pub(crate) fn whole(storage: &Storage, shape: Vec<usize>) -> Result<Self, String> {
        let strides = row_major(&shape);
        Self::view(storage, 0, shape, strides)
    }

    /// A tensor that covers a storage, in Fortran order.
    pub(crate) fn whole_fortran(storage: &Storage, shape: Vec<usize>) -> Result<Self, String> {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let mut strides = row_major(&reversed);
        strides.reverse();
        Self::view(storage, 0, shape, strides)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the elements are floating-point numbers.
    pub fn is_float(&self) -> bool {
        self.element.is_float()
    }

    /// The elements in C order.
    pub fn numbers(&self) -> Vec<f64> {
        let size = self.element.size();
        let mut numbers = Vec::with_capacity(self.len());
        let mut index = vec![0; self.shape.len()];
        for _ in 0..self.len() {
            let at: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            let bytes = self.bytes.get(self.start + at * size..).unwrap_or_default();
            numbers.push(self.element.read(bytes).unwrap_or(f64::NAN));
            for (i, &len) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < len {
                    break;
                }
                *i = 0;
            }
        }
        numbers
    }
}

/// Strides of an array in C order. Shapes that overflow are rejected by [`Array::view`].
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(len: usize) -> Storage {
        let bytes = (0..len).flat_map(|i| (i as f32).to_le_bytes()).collect();
        Storage { element: Element::F32, bytes: Arc::new(bytes), start: 0, len }
    }

    #[test]
    fn elements_follow_offset_and_strides() {
        let transposed = Array::view(&storage(7), 1, vec![2, 3], vec![1, 2]).unwrap();
        assert_eq!(transposed.numbers(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        let fortran = Array::whole_fortran(&storage(6), vec![2, 3]).unwrap();
        assert_eq!(fortran.numbers(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(Array::view(&storage(2), 1, vec![], vec![]).unwrap().numbers(), [1.0]);
    }

    #[test]
    fn views_beyond_a_storage_are_errors() {
        for (offset, shape, strides) in [
            (0, vec![7], vec![1]),
            (1, vec![6], vec![1]),
            (0, vec![2, 3], vec![4, 1]),
            (usize::MAX, vec![1], vec![1]),
            (0, vec![usize::MAX, usize::MAX], vec![0, 0]),
            (0, vec![2, 2], vec![usize::MAX, usize::MAX]),
            (0, vec![2], vec![1, 1]),
            (0, vec![1; 9], vec![1; 9]),
            (0, vec![1_000_000], vec![0]),
        ] {
            assert!(Array::view(&storage(6), offset, shape, strides).is_err());
        }
    }
}
