//! Checks of the kernels' preconditions: buffers and parameters have the lengths implied by an operation's
//! other arguments. They are checked before an operation is queued, so that no user of the device can make a
//! kernel access memory out of bounds.

use super::memory::Buffer;
use crate::ops::Parameters;
use crate::shape::Grid;

/// Checks that a buffer has room for `len` numbers.
///
/// # Panics
/// If it is shorter.
#[track_caller]
pub fn holds(name: &str, buffer: &Buffer, len: usize) {
    assert!(buffer.len() >= len, "{name} is a buffer of {} numbers, but {len} are needed", buffer.len());
}

/// Checks that parameters have the shapes of their layer and are inside a buffer, that of the parameters or
/// of their gradient.
///
/// # Panics
/// If a check fails.
#[track_caller]
pub fn holds_parameters(buffer: &Buffer, at: &impl Parameters) {
    for (span, len) in at.spans() {
        assert!(span.len == len, "parameters of {} numbers, but {len} are needed", span.len);
        holds("params", buffer, span.start + span.len);
    }
}

/// Checks that a squeeze maps `x` `[grid, channels]` to `y`.
///
/// # Panics
/// If the lengths do not match.
#[track_caller]
pub fn squeezes(grid: Grid, channels: usize, x: &Buffer, y: &Buffer) {
    assert!(grid.height.is_multiple_of(2) && grid.width.is_multiple_of(2), "{grid:?} has odd sides");
    assert!(x.len() == grid.rows() * channels, "{} numbers are not {channels} channels on {grid:?}", x.len());
    holds("y", y, x.len());
}

/// Checks that `x` is as long as its two halves together.
///
/// # Panics
/// If the lengths do not match.
#[track_caller]
pub fn halves(channels: usize, x: &Buffer, first: &Buffer, last: &Buffer) {
    let whole = channels.is_multiple_of(2) && x.len().is_multiple_of(channels);
    assert!(whole, "{} numbers are not rows of two halves of {channels} channels", x.len());
    holds("first", first, x.len() / 2);
    holds("last", last, x.len() / 2);
}
