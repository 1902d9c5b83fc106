//! Fixed balanced tree for adding parts.
//!
//! Parts `p₀ … pₙ₋₁` are added in pairs of neighbours, level by level; the last one of an odd level moves up
//! unchanged:
//!
//! ```text
//! level 0   p₀   p₁   p₂   p₃   p₄   p₅   p₆
//! level 1   p₀+p₁     p₂+p₃     p₄+p₅     p₆
//! level 2   (p₀+p₁)+(p₂+p₃)     (p₄+p₅)+p₆
//! level 3   ((p₀+p₁)+(p₂+p₃))+((p₄+p₅)+p₆)
//! ```
//!
//! Aligned runs of `2ᵏ` consecutive parts are subtrees. A rank that has one such run can therefore add it
//! locally: the sum over the ranks' subtotals, in the same tree, has the bits of the sum over all parts. A
//! NaN in a part is propagated to the sum.

use std::ops::Add;

/// Adds parts in the order of the tree as they arrive. It holds at most one subtotal per level.
#[derive(Debug)]
pub struct Tree<P> {
    /// Subtotals with the levels of their subtrees, in decreasing order.
    subtotals: Vec<(u32, P)>,
}

impl<P> Tree<P> {
    /// Creates a tree without parts.
    pub fn new() -> Self {
        Self { subtotals: Vec::new() }
    }

    /// Appends the next part. `add` adds its second argument to its first, and may retain the second's memory
    /// for reuse.
    pub fn push(&mut self, part: P, mut add: impl FnMut(&mut P, P)) {
        let (mut level, mut right) = (0, part);
        while let Some((_, mut left)) = self.subtotals.pop_if(|(other, _)| *other == level) {
            add(&mut left, right);
            (level, right) = (level + 1, left);
        }
        self.subtotals.push((level, right));
    }

    /// Returns the sum of all parts; `None` if there are none.
    pub fn finish(mut self, mut add: impl FnMut(&mut P, P)) -> Option<P> {
        let (_, mut right) = self.subtotals.pop()?;
        while let Some((_, mut left)) = self.subtotals.pop() {
            add(&mut left, right);
            right = left;
        }
        Some(right)
    }
}

impl<P> Default for Tree<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the elementwise sum of parts of equal length, in the order of the tree; empty if there are no
/// parts.
///
/// # Panics
/// If parts differ in length.
pub fn sum<T: Copy + Add<Output = T>>(parts: impl IntoIterator<Item = Vec<T>>) -> Vec<T> {
    let add = |left: &mut Vec<T>, right: Vec<T>| add(left, &right);
    let mut tree = Tree::new();
    parts.into_iter().for_each(|part| tree.push(part, add));
    tree.finish(add).unwrap_or_default()
}

/// Adds the `count` consecutive parts in `values`, in the order of the tree. The sum replaces the first part,
/// and the other parts are overwritten. The length must be a multiple of `count`.
#[cfg_attr(not(all(unix, target_pointer_width = "64")), allow(dead_code))]
pub(crate) fn sum_in_place<T: Copy + Add<Output = T>>(values: &mut [T], count: usize) {
    let length = values.len() / count;
    let mut distance = 1;
    while distance < count {
        for first in (0..count - distance).step_by(2 * distance) {
            let (left, right) = values[first * length..].split_at_mut(distance * length);
            add(&mut left[..length], &right[..length]);
        }
        distance *= 2;
    }
}

fn add<T: Copy + Add<Output = T>>(left: &mut [T], right: &[T]) {
    assert_eq!(left.len(), right.len(), "parts of a sum have the same length");
    left.iter_mut().zip(right).for_each(|(left, right)| *left = *left + *right);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as text, with its brackets.
    fn brackets(parts: usize) -> String {
        let mut tree = Tree::new();
        let add = |left: &mut String, right: String| *left = format!("({left}{right})");
        (0..parts).for_each(|part| tree.push(part.to_string(), add));
        tree.finish(add).unwrap()
    }

    #[test]
    fn parts_are_added_in_pairs() {
        let sums = [1, 2, 3, 4, 5, 6, 7].map(brackets);
        assert_eq!(sums[..4], ["0", "(01)", "((01)2)", "((01)(23))"]);
        assert_eq!(sums[4..], ["(((01)(23))4)", "(((01)(23))(45))", "(((01)(23))((45)6))"]);
        assert_eq!(Tree::<u8>::new().finish(|_, _| ()), None);
    }

    #[test]
    fn a_sum_in_place_has_the_same_bits() {
        for count in 1..=17usize {
            let parts: Vec<Vec<f32>> = (0..count)
                .map(|part| {
                    (0..5)
                        .map(|i| ((part as i32 * 5 + i) as f32 * 0.7).exp().sin() * 1e3f32.powi(i))
                        .collect()
                })
                .collect();
            let mut values = parts.concat();
            sum_in_place(&mut values, count);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values[..5]), bits(&sum(parts)), "{count} parts");
        }
    }

    #[test]
    fn nan_is_in_the_sum() {
        assert!(sum([vec![1.0f32], vec![f32::NAN], vec![2.0]])[0].is_nan());
    }
}
