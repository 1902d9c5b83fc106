//! Subtotals of a gradient: parts of a batch, added in the order of a fixed balanced tree.
//!
//! ```text
//! ((g₀ + g₁) + (g₂ + g₃)) + …
//! ```
//!
//! The order is that of [`glowflow_ranks::Tree`]. Ranks add their parts in the same order, so the sum has the
//! same bits for any number of ranks. All parts use one gradient buffer, whose address is fixed in a captured
//! pass. Subtotals need one more buffer per level of the tree, and none for a single part.

use std::ops::Range;

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Device, Primitives, Strided, View, ViewMut};

/// Subtotals of the parts so far.
pub struct Subtotals<D: Device> {
    /// Subtotals with the levels of their subtrees, in decreasing order.
    stack: Vec<(u32, D::Buffer)>,
    free: Vec<D::Buffer>,
}

impl<D: Primitives> Subtotals<D> {
    /// Creates subtotals without parts.
    pub fn new() -> Self {
        Self { stack: vec![], free: vec![] }
    }

    /// Moves the next part, which is not the last, out of the gradient, and sets the gradient to 0.
    pub fn push(&mut self, device: &D, gradient: &mut D::Buffer) {
        let len = device.len(gradient);
        let mut level = 0;
        while let Some((_, left)) = self.stack.pop_if(|(other, _)| *other == level) {
            add(device, &left, gradient, 0..len);
            self.free.push(left);
            level += 1;
        }
        let mut total = self.free.pop().unwrap_or_else(|| device.scratch(len));
        device.copy(gradient, &mut total);
        self.stack.push((level, total));
        let at = Strided { start: 0, strides: [0, 0, 1] };
        device.map(&constant(0.0), [1, 1, len], &[], ViewMut { buffer: gradient, at });
    }

    /// Adds the subtotals to a slice of the gradient of the last part, which gives that slice of the sum.
    pub fn add_to(&self, device: &D, gradient: &mut D::Buffer, at: Range<usize>) {
        for (_, left) in self.stack.iter().rev() {
            add(device, left, gradient, at.clone());
        }
    }
}

/// Adds a slice of a buffer to the same slice of another.
fn add<D: Primitives>(device: &D, from: &D::Buffer, to: &mut D::Buffer, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    let at = Strided { start: range.start, strides: [0, 0, 1] };
    let from = [View { buffer: from, at }];
    device.map(&(old() + input(0)), [1, 1, range.len()], &from, ViewMut { buffer: to, at });
}

#[cfg(test)]
mod tests {
    use glowflow_kernels::Cpu;
    use glowflow_ranks::sum;

    use super::*;

    #[test]
    fn parts_are_added_in_the_order_of_the_tree() {
        let device = Cpu::<f32>::new();
        for count in 1..=9usize {
            let part = |k: usize| -> Vec<f32> {
                (0..6).map(|i| ((k * 6 + i) as f32 * 0.7).sin() * 10f32.powi(i as i32)).collect()
            };
            let mut subtotals = Subtotals::new();
            let mut gradient = device.zeros(6);
            for k in 0..count {
                assert_eq!(device.download(&gradient).unwrap(), [0.0; 6], "part {k} of {count}");
                device.write(&mut gradient, 0, &part(k));
                if k + 1 < count {
                    subtotals.push(&device, &mut gradient);
                }
            }
            // In slices, as in buckets.
            subtotals.add_to(&device, &mut gradient, 4..6);
            subtotals.add_to(&device, &mut gradient, 0..4);
            assert_eq!(device.download(&gradient).unwrap(), sum((0..count).map(part)), "{count} parts");
        }
    }
}
